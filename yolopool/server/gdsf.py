"""The value of keeping something loaded: the time it saves by the memory it takes. Pure.

The ratio is that of GreedyDual-Size-Frequency (Cherkasova, "Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy", 1998), with arrival rates in place of its counts and
clock. Placement (which worker has a version) and the workers' swap policy (which version is on the
device now) both use it.
"""

# Something loaded is worth up to this share more than a newcomer of the same value. So two equal
# versions do not evict each other in turn, and all rarely used ones share one slot.
STAYING = 0.6
# Uses after which half of that share is reached.
SETTLED_USES = 1.0


def gdsf_value(rate: float, cost_s: float, size_bytes: int, held_s: float) -> float:
    """Seconds of waiting saved per second and byte by keeping something that is requested `rate`
    times a second, takes `cost_s` to load again, and has been loaded for `held_s`.
    """
    uses = rate * max(0.0, held_s)
    settled = uses / (uses + SETTLED_USES)
    return rate * cost_s / max(1, size_bytes) * (1.0 + STAYING * settled)

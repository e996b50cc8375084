"""What keeping something loaded is worth: the time it saves, over the room it takes. Pure.

The ratio is that of GreedyDual-Size-Frequency (Cherkasova, "Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy", 1998), with arrival rates in place of its counts and
clock. Both levels go by it: which worker holds a version, and which of them is on a device now.
"""

# What has stayed is worth so much more than a newcomer of the same merit: two that are asked for
# alike do not take each other's room in turn, and one slot serves all that are asked for rarely.
STAYING = 0.6
# Half of that is reached after so many uses.
SETTLED_USES = 1.0


def gdsf_value(rate: float, cost_s: float, size_bytes: int, held_s: float) -> float:
    """Seconds of waiting saved a second and byte, by keeping what is asked for `rate` times a
    second, takes `cost_s` to bring back, and has been there for `held_s`.
    """
    uses = rate * max(0.0, held_s)
    settled = uses / (uses + SETTLED_USES)
    return rate * cost_s / max(1, size_bytes) * (1.0 + STAYING * settled)

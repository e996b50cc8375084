"""One device that runs what waits, as workers do: what `pass_queue` is held against."""

import random
from itertools import accumulate

from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.pass_queue import SLOW_SHARE, Batched

BATCHES = (1, 2, 4, 8)


def a_curve(fixed_s: float, image_s: float, spread: float = 1.0) -> PassCurve:
    usual_s = tuple(fixed_s + image_s * batch for batch in BATCHES)
    return PassCurve("640x640", BATCHES, usual_s, tuple(spread * each for each in usual_s))


def simulated(
    curve: PassCurve,
    batched: Batched,
    rate: float,
    chance: random.Random,
    requests: int = 8000,
    delay_s: float = 0.0,
) -> tuple[float, float]:
    """The p99 of the time in the queue and the pass, and how busy the device was."""
    arrived = list(accumulate(chance.expovariate(rate) for _ in range(requests)))
    full = batched.cut(10**6)
    took: list[float] = []
    free = busy = 0.0
    first = 0
    while first < requests:
        begins = max(free, arrived[first])
        if delay_s:
            filled = arrived[first + full - 1] if first + full <= requests else begins
            begins = max(begins, min(arrived[first] + delay_s, filled))
        last = first
        while last < requests and arrived[last] <= begins:
            last += 1
        size = batched.cut(last - first)
        slow = chance.random() < SLOW_SHARE / 2
        pass_s = curve.slow_of(size) if slow else curve.usual_of(size)
        free = begins + pass_s
        busy += pass_s
        took += [free - at for at in arrived[first : first + size]]
        first += size
    return sorted(took)[int(0.99 * requests)], busy / free

"""Which batching reaches a p99 goal at a rate, on how many devices; and what would where none does.
Pure: it decides by measured passes, and predicts by `pass_queue`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolopool.evaluation.knee import knee
from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.pass_queue import Batched, Predicted, predicted

# What is predicted must be below this share of the goal: measured passes are of a quieter machine
# than the one that serves.
MARGIN = 0.9
# A delay saves passes only on a device that is busy: above BUSY, and if it saves at least SAVES of
# them.
BUSY, SAVES = 0.5, 0.1
# More devices than this are not thought of.
MOST_DEVICES = 64


@dataclass(frozen=True, slots=True)
class Goal:
    """`p99_s` of a request, at `rate` requests a second that `devices` may share. `beside_s`: what
    a request takes beside its wait and its pass (decoding, network).
    """

    p99_s: float
    rate: float
    devices: int
    beside_s: float = 0.0

    @property
    def left_s(self) -> float:
        """For the wait and the pass, less the margin."""
        return MARGIN * self.p99_s - self.beside_s


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to set, and what is expected then: `p99_s` of a request, `busy` of a device, `images` a
    pass.
    """

    max_batch: int
    preferred_sizes: tuple[int, ...]
    delay_s: float
    replicas: int
    p99_s: float
    busy: float
    images: float


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a goal can't be reached. `nearest` has the lowest p99 that can be; None: the rate is more
    than the devices can answer. What would reach it: so many `devices` (0: no number does), these
    measured `shapes`, a build whose pass of one image takes at most `pass_s` (0: none would).
    """

    nearest: Proposal | None
    devices: int
    shapes: tuple[str, ...]
    pass_s: float


def propose(curve: PassCurve, goal: Goal) -> Proposal | None:
    """What reaches the goal on the fewest devices; None: nothing does."""
    if curve.slow_of(1) > goal.left_s:  # no request takes less
        return None
    for replicas in range(1, goal.devices + 1):
        reaching = [one for one in _options(curve, goal, replicas) if one.p99_s <= _most(goal)]
        if reaching:
            return _with_delay(curve, goal, _best(curve, reaching))
    return None


def shortfall(curves: Mapping[str, PassCurve], curve: PassCurve, goal: Goal) -> Shortfall:
    """What is nearest to a goal that `curve` does not reach, and what would reach it."""
    options = _options(curve, goal, goal.devices)
    nearest = min(options, key=lambda one: (one.p99_s, one.max_batch), default=None)
    more = propose(curve, Goal(goal.p99_s, goal.rate, MOST_DEVICES, goal.beside_s))
    shapes = [name for name, other in curves.items() if other != curve and propose(other, goal)]
    return Shortfall(nearest, more.replicas if more else 0, tuple(shapes), _pass_s(curve, goal))


def _most(goal: Goal) -> float:
    return goal.left_s + goal.beside_s


def _options(curve: PassCurve, goal: Goal, replicas: int) -> list[Proposal]:
    """One for each measured batch that can answer the rate on so many devices."""
    found = []
    for batch in curve.batches:
        sizes = _preferred(curve, batch)
        if sizes[-1] != batch:
            continue  # a smaller one answers as many
        expected = predicted(curve, Batched(batch, sizes), goal.rate / replicas)
        if expected is not None:
            found.append(_proposal(batch, sizes, 0.0, replicas, expected, goal))
    return found


def _proposal(
    batch: int,
    sizes: tuple[int, ...],
    delay_s: float,
    replicas: int,
    expected: Predicted,
    goal: Goal,
) -> Proposal:
    p99_s = expected.p99_s + goal.beside_s
    return Proposal(batch, sizes, delay_s, replicas, p99_s, expected.busy, expected.images)


def _preferred(curve: PassCurve, most: int) -> tuple[int, ...]:
    """The measured sizes up to `most` that each give more images a second than all smaller ones."""
    sizes: list[int] = []
    for batch in curve.batches:
        if batch > most:
            break
        if not sizes or curve.images_per_s(batch) > curve.images_per_s(sizes[-1]):
            sizes.append(batch)
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class _Point:
    batch: int
    images_per_s: float
    p50_ms: float


def _best(curve: PassCurve, options: Sequence[Proposal]) -> Proposal:
    """The knee of the batches that reach the goal: room for a burst, for little latency."""
    points = [
        _Point(one.max_batch, curve.images_per_s(one.max_batch), one.p99_s * 1000)
        for one in options
    ]
    best = knee(points).batch
    return next(one for one in options if one.max_batch == best)


def _with_delay(curve: PassCurve, goal: Goal, chosen: Proposal) -> Proposal:
    """The same, with a delay that saves a busy device passes: half of what is left of the goal, as
    no request waits longer for it. Nothing is saved where batches are full without it.
    """
    delay_s = (_most(goal) - chosen.p99_s) / 2
    if chosen.busy < BUSY or chosen.max_batch == 1 or delay_s <= 0:
        return chosen
    gathered = min(chosen.max_batch, chosen.images + goal.rate / chosen.replicas * delay_s)
    now_s, then_s = (_image_s(curve, images) for images in (chosen.images, gathered))
    if then_s > (1 - SAVES) * now_s:
        return chosen
    delay_s = round(delay_s, 4)
    return Proposal(
        chosen.max_batch,
        chosen.preferred_sizes,
        delay_s,
        chosen.replicas,
        chosen.p99_s + delay_s,
        chosen.busy * then_s / now_s,
        gathered,
    )


def _image_s(curve: PassCurve, images: float) -> float:
    """Device seconds an image, in passes of so many on average."""
    low = int(images)
    part = images - low
    pass_s = (1 - part) * curve.usual_of(max(1, low)) + part * curve.usual_of(low + 1)
    return pass_s / images


def _pass_s(curve: PassCurve, goal: Goal) -> float:
    """The longest pass of one image with which the goal is reached, were all passes as much faster
    as that one; to 1 in 60 of the pass now.
    """
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        faster = PassCurve(
            curve.shape,
            curve.batches,
            tuple(middle * each for each in curve.usual_s),
            tuple(middle * each for each in curve.slow_s),
        )
        low, high = (middle, high) if propose(faster, goal) else (low, middle)
    return low * curve.usual_of(1)

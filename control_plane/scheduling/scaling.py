"""How many copies of a version there are, and what is brought near before it is asked for. Pure.

Copies are added where requests queue, and dropped when the others can carry what there is: the two
bounds lie apart, so that constant demand moves nothing.
"""

from collections.abc import Iterable, Sequence

from control_plane.scheduling.context import Desk, is_loaded
from control_plane.scheduling.proposed_worker import Bench
from control_plane.types.command import Assign
from control_plane.types.desired import Want
from control_plane.types.version import ModelVersion
from control_plane.types.worker import Replica

# One more where requests wait so long at every copy and a device stands idle; one less where the
# others would work less than this share of their time, and nobody waits.
QUEUE_MS, CALM_MS = 100.0, 25.0
CARRY = 0.5
# A copy that works so much of the time for it is full, however short its queue is kept.
FULL = 0.9
# A device that works less than this may take a copy, and one that works less than half of it may
# fetch what nobody asked for yet.
SPARE = 0.6


def copies_to_keep(desk: Desk, want: Want, loaded: Sequence[Replica]) -> int:
    """Of those loaded: what is wanted, and as many more as it takes to carry what there is."""
    there = len(loaded)
    if there <= want.replicas:
        return there
    busy = sum(seat.busy for seat in loaded)
    waits = max(seat.queue_ms for seat in loaded)
    needed = there if waits > CALM_MS else int(busy / CARRY) + 1
    return max(want.replicas, min(there, needed, _most(desk, want)))


def is_calm(seat: Replica) -> bool:
    """Whether nothing speaks for another copy."""
    return seat.queue_ms < QUEUE_MS and seat.busy < FULL


def one_more(desk: Desk, want: Want, version: ModelVersion) -> Iterable[Assign]:
    """A copy of a version whose requests wait at every copy, where a device stands idle."""
    holders = desk.present(want.key)
    seats = [bench.seats[want.key] for bench in holders]
    if not seats or len(seats) >= _most(desk, want) or not all(map(is_loaded, seats)):
        return
    waits_ms = min(seat.queue_ms for seat in seats)
    if waits_ms < QUEUE_MS and min(seat.busy for seat in seats) < FULL:
        return

    def suits(bench: Bench) -> bool:
        if bench.holds(want.key) or not desk.at_home(want.key, bench) or bench.busy > SPARE:
            return False
        size = desk.size(version, bench)
        same = any(bench.worker.device_kind == b.worker.device_kind for b in holders)
        return (
            same
            and desk.failure(bench, want.key) is None
            and bench.fits(size)
            and (bench.fits_hot(size) or bench.crowding < SPARE)
        )

    bench = desk.board.roomiest(suits)
    if bench is not None:
        why = f"its requests wait {waits_ms:.0f} ms at every copy, which are busy"
        yield desk.assign(want, bench, desk.size(version, bench), why, pinned=False)


def _most(desk: Desk, want: Want) -> int:
    version = desk.version(want.key)
    bound = version.given.placement.max_replicas if version is not None else 0
    return max(want.replicas, bound) if bound else max(want.replicas, len(desk.board.benches))

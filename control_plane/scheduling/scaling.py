"""How many copies of a version there are, and what is brought near before it is asked for. Pure.

Copies are added where requests queue, and dropped when the others can carry what there is: the two
bounds lie apart, so that constant demand moves nothing.
"""

from collections.abc import Iterable, Sequence

from control_plane.scheduling.context import Desk, is_loaded
from control_plane.scheduling.proposed_worker import Bench
from control_plane.scheduling.retention import load_s
from control_plane.types.command import Assign
from control_plane.types.desired import (
    Build,
    ModelVersion,
    Replica,
    ReplicaState,
    ResidencyMode,
    VersionKey,
    VersionState,
    Want,
    WantSource,
)

# One more where requests wait so long at every copy and a device stands idle; one less where the
# others would work less than this share of their time, and nobody waits.
QUEUE_MS, CALM_MS = 100.0, 25.0
CARRY = 0.5
# A copy that works so much of the time for it is full, however short its queue is kept.
FULL = 0.9
# A device that works less than this may take a copy, and one that works less than half of it may
# fetch what nobody asked for yet.
SPARE = 0.6
# Prefetched in one plan, and how often a second a version was asked for, to be worth it.
MOST_PREFETCHES = 4
LIKELY_RATE = 1.0 / 3600.0


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


def prefetch(desk: Desk) -> Iterable[Assign]:
    """What is likely to be asked for, beside devices that are idle and have room for it."""
    idle = [b for b in desk.board.benches.values() if _may_fetch(b)]
    if not idle:
        return
    likely = sorted(_likely(desk), key=lambda pair: (-pair[0], pair[1].key))
    for _, version in likely[:MOST_PREFETCHES]:
        for bench in sorted(idle, key=lambda b: (-b.free_tier_bytes, b.worker.id)):
            size = desk.size(version, bench)
            if (
                desk.at_home(version.key, bench)
                and desk.failure(bench, version.key) is None
                and size.weights_bytes <= bench.free_tier_bytes
                and bench.fits(size)
            ):
                want = Want(version.key, 1, False, WantSource.PREFETCH, desk.snapshot.unix_s)
                desk.wants.add(want)
                why = "it is likely to be asked for, and there is room"
                yield desk.assign(want, bench, size, why, prefetch=True)
                idle.remove(bench)  # one at a time
                break


def _may_fetch(bench: Bench) -> bool:
    if not bench.worker.ledger.assignable_bytes or bench.busy > SPARE / 2 or bench.leaving:
        return False
    return all(seat.state is not ReplicaState.ASSIGNED for seat in bench.seats.values())


def _likely(desk: Desk) -> Iterable[tuple[float, ModelVersion]]:
    """Versions that are nowhere and were asked for lately, or take the place of one that is:
    seconds of cold starts they would cost a second, and they.
    """
    snapshot = desk.snapshot
    for key, arrivals in snapshot.departed.items():
        version = _fetchable(desk, key)
        rate = arrivals.now(desk.now).estimate
        if version is not None and rate >= LIKELY_RATE:
            yield rate * load_s(version, Build.usual(""), snapshot.footprints), version
    for key in list(desk.board.places):
        # The next version of a model in use is what its name means from now on.
        newer = _fetchable(desk, VersionKey(key.model, key.number + 1))
        if newer is not None and newer.key not in snapshot.departed:
            rate = _rate(desk, key)
            if rate >= LIKELY_RATE:
                yield rate * load_s(newer, Build.usual(""), snapshot.footprints), newer


def _fetchable(desk: Desk, key: VersionKey) -> ModelVersion | None:
    version = desk.version(key)
    if version is None or version.state is not VersionState.READY:
        return None
    nowhere = key not in desk.wants and key not in desk.board.places
    on_demand = version.given.residency.mode is ResidencyMode.ON_DEMAND
    unloaded = key in desk.snapshot.unloaded or key in desk.snapshot.closing
    return version if nowhere and not on_demand and not unloaded else None


def _rate(desk: Desk, key: VersionKey) -> float:
    return sum(bench.seats[key].rates.estimate for bench in desk.board.holders(key))

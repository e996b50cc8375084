"""Which versions are brought into host memory before anybody asks. Pure."""

from collections.abc import Iterable

from control_plane.scheduling.context import Desk
from control_plane.scheduling.proposed_worker import Bench
from control_plane.scheduling.retention import load_s
from control_plane.scheduling.scaling import SPARE
from control_plane.types.command import Assign
from control_plane.types.desired import Want, WantSource
from control_plane.types.policy import ResidencyMode
from control_plane.types.version import Build, ModelVersion, VersionKey, VersionState
from yolopool.vocabulary import ReplicaState

# Prefetched in one plan, and how often a second a version was asked for, to be worth it.
MOST_PREFETCHES = 4
LIKELY_RATE = 1.0 / 3600.0


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

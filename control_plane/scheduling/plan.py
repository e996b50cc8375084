"""What to load where, and what to drop for it: feasible, then rank, then plan. Pure.

A want that can't be met gets a Wait with the reason. A plan that is carried out leaves nothing
for the next to do: what is released for room is forgotten too, if nobody pinned it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from control_plane.scheduling import descheduling, preemption, prefetch, reasons, scaling
from control_plane.scheduling.context import CPU, Desk, Wants, is_loaded
from control_plane.scheduling.proposed_fleet import Board
from control_plane.scheduling.proposed_worker import Bench, size_of
from control_plane.types.command import Adopt, Assign, Command, Forget, Release, Wait
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import Footprint
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.types.worker import Replica
from yolopool.vocabulary import ReplicaState


def plan(snapshot: Snapshot, now: float) -> list[Command]:
    """Commands that bring the live workers from observed to desired state.

    now: monotonic seconds. Releases stand before the assigns that need their room. No worker's
    ledger is overrun, nothing pinned or with open tickets is released to make room.
    """
    return replan(Board.of(snapshot, now), snapshot, now)


def replan(
    board: Board, snapshot: Snapshot, now: float, about: Collection[VersionKey] | None = None
) -> list[Command]:
    """As `plan`, on a board that was kept up to date, and `about` some versions only: those of
    workers and wants that changed, and those that wait. The board is then as it will be once the
    commands are done.
    """
    desk = Desk(snapshot, board, now, Wants(snapshot), about)
    wants = desk.wants.about(about)
    benches = _benches(board, about)
    commands: list[Command] = [
        *descheduling.unpinned(desk, benches),
        *descheduling.idle(desk, wants),
        *descheduling.stranded(desk, benches),
        *descheduling.unwanted(desk, benches),
    ]
    for key in [want.key for want in sorted(wants, key=desk.urgency)]:
        # A more urgent one may have taken its room, and with it the want or a part of it.
        want = desk.wants.get(key)
        if want is not None:
            commands += _serve(desk, want)
    if desk.wants.forgotten:
        commands += descheduling.unwanted(desk, _benches(board, desk.wants.forgotten))
    if about is None and not any(_wants_room(command) for command in commands):
        commands += prefetch.prefetch(desk)
    # One that is unpinned and then leaves only leaves.
    gone = {(c.worker, c.key) for c in commands if isinstance(c, Release)}
    commands = [c for c in commands if not isinstance(c, Assign) or (c.worker, c.key) not in gone]
    return [c for c in commands if not isinstance(c, Wait) or c.final or c.key in desk.wants]


def _wants_room(command: Command) -> bool:
    return isinstance(command, Wait) and command.reason == "LEDGER_FULL"


def _benches(board: Board, about: Collection[VersionKey] | None) -> list[Bench]:
    if about is None:
        return [board.benches[id_] for id_ in sorted(board.benches)]
    touched = {id_ for key in about for id_ in board.places.get(key, ())}
    return [board.benches[id_] for id_ in sorted(touched)]


def _serve(desk: Desk, want: Want) -> Iterable[Command]:
    """Commands for one want: fewer, more, the right pin, or the reason why not."""
    version = desk.version(want.key)
    if version is None:
        return
    if version.state is not VersionState.READY:
        yield reasons.not_ready(want.key, version)
        return
    holders = desk.present(want.key)
    if _is_settled(desk, want, version, holders):
        return
    at_home = [bench for bench in holders if desk.at_home(want.key, bench)]
    yield from descheduling.surplus(desk, want, at_home)
    yield from descheduling.homeless(desk, want, holders)
    at_home = [bench for bench in at_home if desk.is_at(bench, want.key)]
    refused: list[Command] = []
    for bench in _to_pin(want, at_home):
        commands = preemption.pins_of(desk, want, bench)
        refused += [c for c in commands if isinstance(c, Wait)]
        yield from (c for c in commands if not isinstance(c, Wait))
    if want.source is WantSource.PREFETCH and not holders:
        yield _forget(desk, want, "nobody asked for it, and its worker is gone")
        return
    if want.source is WantSource.PREFETCH and _is_in_use(want, holders):
        desk.wants.add(replace(want, source=WantSource.MISS))
        yield Adopt(want.key)
    yield from _finished(desk, want, at_home)
    yield from _remade(desk, want, version, at_home)
    yield from _batched(desk, want, version, at_home)
    # One that can't be pinned where it is serves on there until another worker has it.
    missing = want.replicas - len(at_home) + len(refused)
    for _ in range(missing):
        more = _one_more(desk, want, version)
        if isinstance(more[-1], Wait):
            yield from refused[:1] or _given_up(desk, want, more)
            return
        yield from more
    if missing <= 0:
        yield from scaling.one_more(desk, want, version)


def _to_pin(want: Want, holders: list[Bench]) -> list[Bench]:
    """As many as are wanted, those that are pinned first: copies beyond give way to others."""
    if not want.pinned:
        return []
    return sorted(holders, key=lambda b: not b.seats[want.key].pinned)[: want.replicas]


def _is_settled(desk: Desk, want: Want, version: ModelVersion, holders: list[Bench]) -> bool:
    """Whether nothing is to be decided, as of nearly all versions nearly always."""
    if len(holders) != want.replicas or want.pinned:
        return False
    if want.source is WantSource.PREFETCH and _is_in_use(want, holders):
        return False
    return all(
        scaling.is_calm(bench.seats[want.key])
        and desk.at_home(want.key, bench)
        and not _is_half_loaded(want, bench.seats[want.key])
        and not _is_batched_otherwise(version, bench)
        and not _is_outdated(version, bench)
        for bench in holders
    )


def _is_in_use(want: Want, holders: list[Bench]) -> bool:
    uses = (bench.last_used(bench.seats[want.key]) for bench in holders)
    return any(used >= want.since_unix_s for used in uses)


def _is_half_loaded(want: Want, seat: Replica) -> bool:
    """Whether it was only fetched ahead, and is wanted by now: a load goes to the device once."""
    ahead = seat.state is ReplicaState.WARM and seat.footprint is None
    return ahead and want.source is not WantSource.PREFETCH


def _finished(desk: Desk, want: Want, holders: list[Bench]) -> Iterable[Command]:
    if want.key in desk.assigned:
        return
    for bench in holders:
        seat = bench.seats[want.key]
        if not _is_half_loaded(want, seat):
            continue
        # One that pinned ones keep from the device is to leave it when it can.
        if bench.fits(size_of(seat), pinned=seat.pinned, without=[want.key]):
            yield desk.pin(bench, replace(want, pinned=seat.pinned), "it was only fetched ahead")


def _remade(
    desk: Desk, want: Want, version: ModelVersion, holders: list[Bench]
) -> Iterable[Command]:
    """Those that are of another build than is served now are loaded anew, one at a time."""
    others = [bench for bench in holders if _is_outdated(version, bench)]
    if not others or any(not is_loaded(bench.seats[want.key]) for bench in holders):
        return
    kinds = {bench.worker.device_kind for bench in others}
    # What failed on one is not to take the version off the next.
    if any(
        bench.worker.device_kind in kinds and desk.failure(bench, want.key) is not None
        for bench in desk.board.benches.values()
    ):
        return
    if want.key not in desk.assigned:
        yield desk.remake(others[0], want)


def _is_outdated(version: ModelVersion, bench: Bench) -> bool:
    seat = bench.seats[version.key]
    return is_loaded(seat) and seat.is_outdated(version, bench.worker.build)


def _batched(
    desk: Desk, want: Want, version: ModelVersion, holders: list[Bench]
) -> Iterable[Command]:
    """Those whose batching changed since they were loaded hear of it."""
    for bench in holders:
        if want.key not in desk.assigned and _is_batched_otherwise(version, bench):
            yield desk.batch(bench, want, version.given.batching.get(bench.worker.device_kind))


def _is_batched_otherwise(version: ModelVersion, bench: Bench) -> bool:
    seat = bench.seats[version.key]
    if not is_loaded(seat) or seat.footprint is None:
        return False  # it comes with the load
    return seat.batching != version.given.batching.get(bench.worker.device_kind)


def _given_up(desk: Desk, want: Want, commands: list[Command]) -> Iterable[Command]:
    """What hinders a want; one that failed wherever it may be is not tried for ever."""
    wait = commands[-1]
    yield from commands
    soft = want.source is not WantSource.ADMIN and not want.pinned
    failed = isinstance(wait, Wait) and wait.final and wait.reason == "LOAD_FAILED"
    if failed and soft and not desk.present(want.key):
        yield _forget(desk, want, "it failed to load wherever it may be")


def _forget(desk: Desk, want: Want, why: str) -> Forget:
    desk.wants.forget(want.key)
    return Forget(want.key, why)


def _one_more(desk: Desk, want: Want, version: ModelVersion) -> list[Command]:
    """An Assign with the Releases it needs before it, or a Wait."""
    benches = desk.board.benches
    if not benches:
        return [reasons.no_worker(want.key)]
    first = _where_it_fits(desk, want, version)
    if first is not None:
        return [desk.assign(want, first, desk.size(version, first), "it fits")]
    free = [b for b in benches.values() if not b.holds(want.key)]
    if not free:
        return [reasons.too_few_workers(want.key, want.replicas, len(benches))]
    at_home = [b for b in free if desk.at_home(want.key, b)]
    if not at_home:
        return [reasons.nowhere_allowed(want.key, version.given)]
    sizes = {b.worker.id: desk.size(version, b) for b in at_home}
    allowed = _allowed(desk, version, at_home, sizes)
    if not allowed:
        return [reasons.only_cpus(want.key)]
    roomy = [b for b in allowed if b.fits_empty(sizes[b.worker.id])]
    if not roomy:
        return [reasons.too_large(want.key, allowed, sizes)]
    willing = [b for b in roomy if desk.failure(b, want.key) is None]
    if not willing:
        return [_failed(desk, want.key, roomy)]
    return _place(desk, want, willing, sizes)


def _where_it_fits(desk: Desk, want: Want, version: ModelVersion) -> Bench | None:
    """Of the workers where it fits beside all that is there, the one with most room."""
    fallback = not desk.only_cpus and version.given.residency.cpu_fallback

    def suits(bench: Bench) -> bool:
        if bench.holds(want.key) or desk.failure(bench, want.key) is not None:
            return False
        if bench.worker.device_kind == CPU and not desk.may_use_cpus(version):
            return False
        size = desk.size(version, bench)
        return (
            bench.fits_hot(size)
            and bench.fits_empty(size)
            and desk.at_home(want.key, bench)
            and bench.fits(size, pinned=want.pinned)
        )

    return None if fallback else desk.board.roomiest(suits)


def _allowed(
    desk: Desk, version: ModelVersion, free: list[Bench], sizes: dict[str, Footprint]
) -> list[Bench]:
    """Those of `free` that the version may run on: in a fleet with accelerators a CPU only
    takes what falls back to it, once every accelerator there is has failed to load it.
    """
    if desk.may_use_cpus(version):
        return free
    fast = [b for b in free if b.worker.device_kind != CPU]
    failed = all(
        not b.fits_empty(sizes[b.worker.id]) or _lasting_failure(desk, b, version.key) for b in fast
    )
    held = any(b.worker.device_kind != CPU for b in desk.present(version.key))
    if version.given.residency.cpu_fallback and failed and not held:
        return [b for b in free if b.worker.device_kind == CPU] or fast
    return fast


def _lasting_failure(desk: Desk, bench: Bench, key: VersionKey) -> bool:
    failure = desk.failure(bench, key)
    return failure is not None and failure.reason not in reasons.PASSING


def _place(
    desk: Desk, want: Want, willing: list[Bench], sizes: dict[str, Footprint]
) -> list[Command]:
    """On the device beside all others, else in turn with others, else by making room."""
    pinned = want.pinned
    fitting = [b for b in willing if b.fits(sizes[b.worker.id], pinned=pinned)]
    hot = [b for b in fitting if b.fits_hot(sizes[b.worker.id])]
    if hot:
        bench = min(hot, key=lambda b: (-b.free_bytes, b.worker.id))
        return [desk.assign(want, bench, sizes[bench.worker.id], "it fits")]
    if fitting:
        bench = min(fitting, key=lambda b: (b.crowding, b.load_share, b.worker.id))
        why = "it takes turns with others there"
        return [desk.assign(want, bench, sizes[bench.worker.id], why)]
    if any(b.fits(sizes[b.worker.id], pinned=pinned, after_leaving=True) for b in willing):
        return [reasons.leaving(want.key)]
    return [*preemption.by_making_room(desk, want, willing, sizes)]


def _failed(desk: Desk, key: VersionKey, benches: Sequence[Bench]) -> Wait:
    found = [(f, b.worker.id) for b in benches if (f := desk.failure(b, key)) is not None]
    return reasons.failed(key, found, desk.now)

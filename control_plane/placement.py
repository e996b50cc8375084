"""What to load where, and what to drop for it: feasible, then rank, then plan. Pure.

A want that can't be met gets a Wait with the reason. A plan that is carried out leaves nothing
for the next to do: what is released for room is forgotten too, if nobody pinned it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from control_plane import refusals
from control_plane.bench import Bench, Seat
from control_plane.commands import Assign, Command, Release, Wait
from control_plane.fleet import (
    Footprint,
    LoadFailure,
    ModelVersion,
    ReplicaState,
    ResidencyMode,
    Snapshot,
    VersionKey,
    VersionState,
    Want,
)
from control_plane.footprints import footprint

CPU = "cpu"
LOADED = frozenset({ReplicaState.WARM, ReplicaState.HOT})
PRESENT = LOADED | {ReplicaState.ASSIGNED}


def plan(snapshot: Snapshot, now: float) -> list[Command]:
    """Commands that bring the live workers from observed to desired state.

    now: monotonic seconds. Releases stand before the assigns that need their room. No worker's
    ledger is overrun, nothing pinned or with open tickets is released to make room.
    """
    benches = {
        worker.id: Bench.of(worker)
        for worker in sorted(snapshot.workers.values(), key=lambda worker: worker.id)
        if worker.is_live(now)
    }
    desk = _Desk(snapshot, benches, now, snapshot.desired.all_wants())
    commands = [*desk.unpinned(), *desk.idle(), *desk.stranded(), *desk.unwanted()]
    for want in sorted(desk.wants.values(), key=urgency):
        # A more urgent one may have taken its room, and with it the want.
        if want.key in desk.wants:
            commands += desk.serve(want)
    commands += desk.unwanted()
    return [c for c in commands if not isinstance(c, Wait) or c.key in desk.wants]


def urgency(want: Want) -> tuple[bool, float, VersionKey]:
    """Order in which wants are served: pinned first, then the oldest."""
    return (not want.pinned, want.since_unix_s, want.key)


@dataclass(slots=True)
class _Desk:
    """One plan in the making: benches and wants as they will be once the commands are done."""

    snapshot: Snapshot
    benches: Mapping[str, Bench]
    now: float
    wants: dict[VersionKey, Want]
    assigned: set[VersionKey] = field(default_factory=set)

    def unpinned(self) -> Iterable[Assign]:
        """Pins that nobody wants any more end first: others may need their room on the device."""
        for bench in self.benches.values():
            for seat in list(bench.seats.values()):
                want = self.wants.get(seat.key)
                if seat.pinned and want is not None and not want.pinned and _is_loaded(seat):
                    yield self._pin(bench, want, "it was unpinned")

    def idle(self) -> Iterable[Release]:
        """Releases of versions that are kept on demand only and were not asked for lately."""
        for want in list(self.wants.values()):
            idle_s = self._idle_limit_s(want)
            places = [b for b in self.benches.values() if b.state_of(want.key) in PRESENT]
            # With its want all replicas go: one that is still in use keeps the others.
            idle = [self._is_idle(b.seats[want.key], want, idle_s) for b in places]
            if not idle or not all(idle):
                continue
            self.wants.pop(want.key)
            for bench in places:
                bench.release(want.key)
                why = f"idle for {idle_s:g} s: it is kept on demand only"
                yield Release(bench.worker.id, want.key, why, forget=True)

    def _idle_limit_s(self, want: Want) -> float:
        version = self.snapshot.desired.versions.get(want.key)
        if version is None or want.pinned:
            return float("inf")
        residency = version.given.residency
        on_demand = residency.mode is ResidencyMode.ON_DEMAND
        return residency.idle_release_s if on_demand else float("inf")

    def _is_idle(self, seat: Seat, want: Want, limit_s: float) -> bool:
        idle_s = self.snapshot.unix_s - max(seat.last_used, want.since_unix_s)
        return _is_loaded(seat) and not seat.outstanding and idle_s >= limit_s

    def stranded(self) -> Iterable[Release]:
        """Releases of versions that pinned ones leave no room for on their device."""
        for bench in self.benches.values():
            for key in bench.stranded():
                seat = bench.seats[key]
                if not _is_loaded(seat) or seat.outstanding:
                    continue
                bench.release(key)
                soft = not self._is_pinned(seat)
                if soft:
                    self.wants.pop(key, None)
                why = "pinned models leave no room for it on the device"
                yield Release(bench.worker.id, key, why, forget=soft)

    def unwanted(self) -> Iterable[Command]:
        """Releases of versions that nobody wants; one that is being loaded ends its load first."""
        for bench in self.benches.values():
            for seat in list(bench.seats.values()):
                if seat.key not in self.wants and seat.state is not ReplicaState.ASSIGNED:
                    bench.release(seat.key)
                    deleted = seat.key not in self.snapshot.desired.versions
                    yield Release(
                        bench.worker.id,
                        seat.key,
                        "it was deleted" if deleted else "nobody wants it",
                    )

    def serve(self, want: Want) -> Iterable[Command]:
        """Commands for one want: fewer, more, the right pin, or the reason why not."""
        version = self.snapshot.desired.versions.get(want.key)
        if version is None:
            return
        if version.state is not VersionState.READY:
            yield refusals.not_ready(want.key, version)
            return
        yield from self._surplus(want)
        present = [b for b in self.benches.values() if b.state_of(want.key) in PRESENT]
        refused: list[Wait] = []
        for bench in present:
            pins = self._pins(want, bench)
            refused += [c for c in pins if isinstance(c, Wait)]
            yield from (c for c in pins if not isinstance(c, Wait))
        # One that can't be pinned where it is serves on there until another worker has it.
        for _ in range(want.replicas - len(present) + len(refused)):
            commands = self._one_more(want, version)
            if isinstance(commands[-1], Wait):
                yield refused[0] if refused else commands[-1]
                return
            yield from commands

    def _surplus(self, want: Want) -> Iterable[Release]:
        """Releases of copies beyond what is wanted; those that are still loading count not."""

        def worth(bench: Bench) -> tuple[bool, bool, bool, float, str]:
            seat = bench.seats[want.key]
            hot, pinned = seat.state is ReplicaState.HOT, want.pinned and seat.pinned
            return (pinned, seat.outstanding > 0, hot, seat.last_used, bench.worker.id)

        loaded = [b for b in self.benches.values() if b.state_of(want.key) in LOADED]
        for bench in sorted(loaded, key=worth)[: max(0, len(loaded) - want.replicas)]:
            bench.release(want.key)
            why = f"{len(loaded)} replicas are there and {want.replicas} are wanted"
            yield Release(bench.worker.id, want.key, why)

    def _pins(self, want: Want, bench: Bench) -> list[Command]:
        """The pin that a replica lacks, with the Releases it needs before it, or a Wait."""
        seat = bench.seats[want.key]
        if not want.pinned or seat.pinned or not _is_loaded(seat):
            return []
        # Less urgent ones are to be pinned too: they take what room this leaves.
        rivals = [s.key for s in bench.seats.values() if not s.pinned and self._is_pinned(s)]
        if bench.can_pin(want.key, without=rivals):
            return [self._pin(bench, want, "it was pinned")]
        victims = self._victims(want, bench, seat.size, rivals)
        if not victims:
            return [self._no_room(want, [bench], {bench.worker.id: seat.size})]
        releases = self._make_room(want, bench, victims)
        return [*releases, self._pin(bench, want, "it was pinned", bench.released_now)]

    def _pin(
        self, bench: Bench, want: Want, why: str, after: Collection[VersionKey] = ()
    ) -> Assign:
        bench.pin(want.key, want.pinned)
        self.assigned.add(want.key)
        return Assign(bench.worker.id, want.key, want.pinned, why, tuple(sorted(after)))

    def _one_more(self, want: Want, version: ModelVersion) -> list[Command]:
        """An Assign with the Releases it needs before it, or a Wait."""
        if not self.benches:
            return [refusals.no_worker(want.key)]
        known = self.snapshot.footprints
        sizes = {
            bench.worker.id: footprint(version, bench.worker.device_kind, known)
            for bench in self.benches.values()
        }
        free = [b for b in self.benches.values() if not b.holds(want.key)]
        if not free:
            return [refusals.too_few_workers(want.key, want.replicas, len(self.benches))]
        allowed = self._allowed(version, free, sizes)
        if not allowed:
            return [refusals.only_cpus(want.key)]
        roomy = [b for b in allowed if b.fits_empty(sizes[b.worker.id])]
        if not roomy:
            return [refusals.too_large(want.key, allowed, sizes)]
        willing = [b for b in roomy if self._failure(b, want.key) is None]
        if not willing:
            return [self._failed(want.key, roomy)]
        return self._place(want, willing, sizes)

    def _allowed(
        self, version: ModelVersion, free: list[Bench], sizes: Mapping[str, Footprint]
    ) -> list[Bench]:
        """Those of `free` that the version may run on: in a fleet with accelerators a CPU only
        takes what falls back to it, once every accelerator there is has failed to load it.
        """
        workers = self.snapshot.workers.values()
        if all(worker.device_kind == CPU for worker in workers):
            return free
        fast = [b for b in free if b.worker.device_kind != CPU]
        failed = all(
            not b.fits_empty(sizes[b.worker.id]) or self._lasting_failure(b, version.key)
            for b in fast
        )
        held = any(
            b.worker.device_kind != CPU and b.state_of(version.key) in PRESENT
            for b in self.benches.values()
        )
        if version.given.residency.cpu_fallback and failed and not held:
            return [b for b in free if b.worker.device_kind == CPU] or fast
        return fast

    def _lasting_failure(self, bench: Bench, key: VersionKey) -> bool:
        failure = self._failure(bench, key)
        return failure is not None and failure.reason not in refusals.PASSING

    def _place(
        self, want: Want, willing: list[Bench], sizes: Mapping[str, Footprint]
    ) -> list[Command]:
        pinned = want.pinned
        fitting = [b for b in willing if b.fits(sizes[b.worker.id], pinned=pinned)]
        hot = [b for b in fitting if b.fits_hot(sizes[b.worker.id])]
        if hot:
            bench = min(hot, key=lambda b: (-b.free_bytes, b.worker.id))
            return [self._assign(want, bench, sizes[bench.worker.id], "it fits")]
        if fitting:
            bench = min(fitting, key=lambda b: (b.load_share, b.worker.id))
            why = "it takes turns with others there"
            return [self._assign(want, bench, sizes[bench.worker.id], why)]
        if any(b.fits(sizes[b.worker.id], pinned=pinned, after_leaving=True) for b in willing):
            return [refusals.leaving(want.key)]
        offers = [
            (bench, victims)
            for bench in willing
            if (victims := self._victims(want, bench, sizes[bench.worker.id]))
        ]
        if not offers:
            return [self._no_room(want, willing, sizes)]
        bench, victims = min(
            offers, key=lambda o: (max(s.last_used for s in o[1]), len(o[1]), o[0].worker.id)
        )
        releases = self._make_room(want, bench, victims)
        return [*releases, self._assign(want, bench, sizes[bench.worker.id], "after making room")]

    def _make_room(self, want: Want, bench: Bench, victims: list[Seat]) -> list[Release]:
        for seat in victims:
            bench.release(seat.key)
            self.wants.pop(seat.key, None)
        why = f"least recently used, to make room for {want.key}"
        return [Release(bench.worker.id, seat.key, why, forget=True) for seat in victims]

    def _assign(self, want: Want, bench: Bench, size: Footprint, why: str) -> Assign:
        waits = not bench.fits(size, pinned=want.pinned, before_leaving=True)
        after = bench.released_now if waits else ()
        bench.assign(want.key, size, want.pinned)
        self.assigned.add(want.key)
        return Assign(bench.worker.id, want.key, want.pinned, why, tuple(sorted(after)))

    def _victims(
        self, want: Want, bench: Bench, size: Footprint, beside: Collection[VersionKey] = ()
    ) -> list[Seat]:
        """Fewest of the least recently used seats whose leaving, as if those `beside` had left
        too, makes room; empty: none do.
        """

        def is_room(gone: list[Seat]) -> bool:
            without = [*beside, *(seat.key for seat in gone)]
            return bench.fits(size, pinned=want.pinned, without=without)

        chosen: list[Seat] = []
        for seat in sorted(
            (s for s in bench.seats.values() if self._may_leave(s, want)),
            key=lambda s: (not self._served(s), s.last_used, s.key),
        ):
            chosen.append(seat)
            if is_room(chosen):
                break
        else:
            return []
        # The last made the difference; earlier ones may not be needed beside it.
        for seat in reversed(chosen[:-1]):
            fewer = [s for s in chosen if s is not seat]
            if is_room(fewer):
                chosen = fewer
        return chosen

    def _may_leave(self, seat: Seat, want: Want) -> bool:
        """Whether a seat may be taken for `want`: soft, idle, and not just made for a newer want.

        The last, since else two wants could take the room from each other, neither ever used.
        """
        if not _is_loaded(seat) or seat.key in self.assigned or seat.outstanding:
            return False
        wanted = self.wants.get(seat.key)
        if wanted is None:
            return True
        if wanted.pinned:
            return False
        return self._served(seat) or urgency(wanted) < urgency(want) or want.pinned

    def _served(self, seat: Seat) -> bool:
        wanted = self.wants.get(seat.key)
        return wanted is None or seat.last_used >= wanted.since_unix_s

    def _failure(self, bench: Bench, key: VersionKey) -> LoadFailure | None:
        failure = self.snapshot.failures.get((bench.worker.id, key))
        return failure if failure is not None and self.now < failure.retry_at_s else None

    def _failed(self, key: VersionKey, benches: list[Bench]) -> Wait:
        found = [(f, b.worker.id) for b in benches if (f := self._failure(b, key)) is not None]
        return refusals.failed(key, found, self.now)

    def _no_room(self, want: Want, benches: list[Bench], sizes: Mapping[str, Footprint]) -> Wait:
        for bench in benches:
            soft = [s.key for s in bench.seats.values() if not self._is_pinned(s)]
            size = sizes[bench.worker.id]
            if bench.fits(size, pinned=want.pinned, without=[*soft, want.key], after_leaving=True):
                return refusals.in_use(want.key)
        return refusals.pinned_full(want.key)

    def _is_pinned(self, seat: Seat) -> bool:
        wanted = self.wants.get(seat.key)
        return wanted.pinned if wanted is not None else seat.pinned


def _is_loaded(seat: Seat) -> bool:
    return seat.state in LOADED

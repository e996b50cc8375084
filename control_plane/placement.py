"""What to load where, and what to drop for it: feasible, then rank, then plan. Pure.

A want that can't be met gets a Wait with the reason. A plan that is carried out leaves nothing
for the next to do: what is released for room is forgotten too, if nobody pinned it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.bench import Bench, Seat
from control_plane.fleet import (
    VARIANTS,
    Assign,
    Command,
    Footprint,
    FootprintKey,
    LoadFailure,
    ModelVersion,
    Release,
    ReplicaState,
    ResidencyMode,
    Snapshot,
    VersionKey,
    VersionState,
    Wait,
    Want,
)

CPU = "cpu"
PRESENT = frozenset({ReplicaState.ASSIGNED, ReplicaState.WARM, ReplicaState.HOT})
PIXELS_PER_MEGAPIXEL = 1_000_000
INPUT_BYTES_PER_PIXEL = 3 * (1 + 4)
# The library's size for a version whose settings say none; an import always fills it in.
DEFAULT_IMAGE_SIZE = 640
# Refusals of the moment: the worker is fine and so is the pack, so no caller is told a failure.
PASSING = frozenset({"LEDGER_FULL", "DRAINING", "WORKER_LOST", "UNAVAILABLE"})


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
    commands = [*desk.idle(), *desk.stranded(), *desk.unwanted()]
    for want in sorted(desk.wants.values(), key=urgency):
        # A more urgent one may have taken its room, and with it the want.
        if want.key in desk.wants:
            commands += desk.serve(want)
    commands += desk.unwanted()
    return [c for c in commands if not isinstance(c, Wait) or c.key in desk.wants]


def urgency(want: Want) -> tuple[bool, float, VersionKey]:
    """Order in which wants are served: pinned first, then the oldest."""
    return (not want.pinned, want.since_unix_s, want.key)


def footprint(version: ModelVersion, device_kind: str, snapshot: Snapshot) -> Footprint:
    """Bytes of a version on a kind of device: measured, else the estimate of its import.

    The estimate is weights + activations per megapixel x image_size^2 of one image, and that
    image as bytes and as float32, three channels each: what workers reserve before they measure.
    """
    if version.pack is None:
        return Footprint(0, 0)
    variant = VARIANTS.get(device_kind, "")
    measured = snapshot.footprints.get(FootprintKey(version.pack.digest, variant, device_kind))
    if measured is not None:
        return measured
    size = version.settings.image_size or DEFAULT_IMAGE_SIZE
    pixels = size * size
    activations = version.pack.activation_bytes_per_megapixel * pixels // PIXELS_PER_MEGAPIXEL
    return Footprint(version.pack.weights_bytes, activations + pixels * INPUT_BYTES_PER_PIXEL)


@dataclass(slots=True)
class _Desk:
    """One plan in the making: benches and wants as they will be once the commands are done."""

    snapshot: Snapshot
    benches: Mapping[str, Bench]
    now: float
    wants: dict[VersionKey, Want]
    assigned: set[VersionKey] = field(default_factory=set)

    def idle(self) -> Iterable[Release]:
        """Releases of versions that are kept on demand only and were not asked for lately."""
        for bench in self.benches.values():
            for seat in list(bench.seats.values()):
                idle_s = self._idle_limit_s(seat)
                if idle_s is not None and self._idle_s(seat) >= idle_s:
                    bench.release(seat.key)
                    self.wants.pop(seat.key, None)
                    why = f"idle for {idle_s:g} s: it is kept on demand only"
                    yield Release(bench.worker.id, seat.key, why, forget=True)

    def _idle_limit_s(self, seat: Seat) -> float | None:
        version = self.snapshot.desired.versions.get(seat.key)
        if version is None or seat.outstanding or self._is_pinned(seat):
            return None
        if seat.state not in (ReplicaState.WARM, ReplicaState.HOT):
            return None
        residency = version.given.residency
        on_demand = residency.mode is ResidencyMode.ON_DEMAND
        return residency.idle_release_s if on_demand else None

    def _idle_s(self, seat: Seat) -> float:
        want = self.wants.get(seat.key)
        since = want.since_unix_s if want is not None else 0.0
        return self.snapshot.unix_s - max(seat.last_used, since)

    def stranded(self) -> Iterable[Release]:
        """Releases of versions that pinned ones leave no room for on their device."""
        for bench in self.benches.values():
            for key in bench.stranded():
                seat = bench.seats[key]
                if seat.state is ReplicaState.ASSIGNED or seat.outstanding:
                    continue
                bench.release(key)
                self.wants.pop(key, None)
                why = "pinned models leave no room for it on the device"
                yield Release(bench.worker.id, key, why, forget=True)

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
        if version is None or version.state is not VersionState.READY:
            yield from _not_ready(want.key, version)
            return
        present = [b for b in self.benches.values() if b.state_of(want.key) in PRESENT]
        yield from self._surplus(want, present)
        yield from self._pins(want)
        for _ in range(want.replicas - len(present)):
            commands = self._one_more(want, version)
            yield from commands
            if isinstance(commands[-1], Wait):
                return

    def _surplus(self, want: Want, present: list[Bench]) -> Iterable[Release]:
        def worth(bench: Bench) -> tuple[bool, bool, float, str]:
            seat = bench.seats[want.key]
            hot = seat.state is ReplicaState.HOT
            return (seat.outstanding > 0, hot, seat.last_used, bench.worker.id)

        surplus = max(0, len(present) - want.replicas)
        for bench in sorted(present, key=worth)[:surplus]:
            if bench.seats[want.key].state is not ReplicaState.ASSIGNED:
                bench.release(want.key)
                why = f"{len(present)} replicas are there and {want.replicas} are wanted"
                yield Release(bench.worker.id, want.key, why)

    def _pins(self, want: Want) -> Iterable[Assign | Wait]:
        for bench in self.benches.values():
            seat = bench.seats.get(want.key)
            if seat is None or seat.state not in (ReplicaState.WARM, ReplicaState.HOT):
                continue
            if want.pinned and not seat.pinned and not bench.can_pin(want.key):
                why = f"pinned models leave no room to pin {want.key}: unpin one, or add a worker"
                yield Wait(want.key, "LEDGER_FULL", why, final=True)
            elif seat.pinned != want.pinned:
                why = "it was pinned" if want.pinned else "it was unpinned"
                yield Assign(bench.worker.id, want.key, want.pinned, why)

    def _one_more(self, want: Want, version: ModelVersion) -> list[Command]:
        """An Assign with the Releases it needs before it, or a Wait."""
        if not self.benches:
            return [Wait(want.key, "NO_WORKER", "no worker is connected: start one")]
        sizes = {
            bench.worker.id: footprint(version, bench.worker.device_kind, self.snapshot)
            for bench in self.benches.values()
        }
        free = [b for b in self.benches.values() if not b.holds(want.key)]
        if not free:
            count = len(self.benches)
            why = f"{want.replicas} replicas are wanted and {count} workers are connected"
            return [Wait(want.key, "NO_WORKER", f"{why}: start more, or want fewer")]
        allowed = self._allowed(version, free, sizes)
        if not allowed:
            why = "only CPU workers are free, and it may run there only with cpu_fallback"
            return [Wait(want.key, "NO_WORKER", f"{why}: allow it, or start another worker")]
        roomy = [b for b in allowed if b.fits_empty(sizes[b.worker.id])]
        if not roomy:
            return [_too_large(want.key, allowed, sizes)]
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
        return failure is not None and failure.reason not in PASSING

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
            return [Wait(want.key, "LEDGER_FULL", f"{want.key} waits for another to leave")]
        offers = [
            (bench, victims)
            for bench in willing
            if (victims := self._victims(want, bench, sizes[bench.worker.id]))
        ]
        if not offers:
            return [self._no_room(want.key, willing, sizes)]
        bench, victims = min(
            offers, key=lambda o: (max(s.last_used for s in o[1]), len(o[1]), o[0].worker.id)
        )
        commands: list[Command] = []
        for seat in victims:
            bench.release(seat.key)
            self.wants.pop(seat.key, None)
            why = f"least recently used, to make room for {want.key}"
            commands.append(Release(bench.worker.id, seat.key, why, forget=True))
        return [*commands, self._assign(want, bench, sizes[bench.worker.id], "after making room")]

    def _assign(self, want: Want, bench: Bench, size: Footprint, why: str) -> Assign:
        waits = not bench.fits(size, pinned=want.pinned, before_leaving=True)
        after = bench.released_now if waits else ()
        bench.assign(want.key, size, want.pinned)
        self.assigned.add(want.key)
        return Assign(bench.worker.id, want.key, want.pinned, why, tuple(sorted(after)))

    def _victims(self, want: Want, bench: Bench, size: Footprint) -> list[Seat]:
        """Fewest of the least recently used seats whose leaving makes room; empty: none do."""
        chosen: list[Seat] = []
        for seat in sorted(
            (s for s in bench.seats.values() if self._may_leave(s, want)),
            key=lambda s: (not self._served(s), s.last_used, s.key),
        ):
            chosen.append(seat)
            if bench.fits(size, pinned=want.pinned, without=[s.key for s in chosen]):
                break
        else:
            return []
        # The last made the difference; earlier ones may not be needed beside it.
        for seat in reversed(chosen[:-1]):
            fewer = [s for s in chosen if s is not seat]
            if bench.fits(size, pinned=want.pinned, without=[s.key for s in fewer]):
                chosen = fewer
        return chosen

    def _may_leave(self, seat: Seat, want: Want) -> bool:
        """Whether a seat may be taken for `want`: soft, idle, and not just made for a newer want.

        The last, since else two wants could take the room from each other, neither ever used.
        """
        if seat.state not in (ReplicaState.WARM, ReplicaState.HOT):
            return False
        if seat.key in self.assigned or seat.outstanding:
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
        first, worker = min(found, key=lambda pair: (pair[0].retry_at_s, pair[1]))
        # One that fails for good decides what callers hear.
        lasting = [(f, w) for f, w in found if f.reason not in PASSING]
        left_s = max(0.0, first.retry_at_s - self.now)
        if len(lasting) < len(found):
            return Wait(key, first.reason, f"{worker}: {first.message}", retry_after_s=left_s)
        why = f"loading {key} on {worker} failed: {first.reason}: {first.message}"
        return Wait(key, "LOAD_FAILED", why, final=True, retry_after_s=left_s)

    def _no_room(
        self, key: VersionKey, benches: list[Bench], sizes: Mapping[str, Footprint]
    ) -> Wait:
        for bench in benches:
            soft = [s.key for s in bench.seats.values() if not self._is_pinned(s)]
            if bench.fits(sizes[bench.worker.id], without=soft, after_leaving=True):
                why = f"{key} waits for room: every other model is in use or just being loaded"
                return Wait(key, "LEDGER_FULL", why)
        why = f"pinned models leave no room for {key}: unload or unpin one, or add a worker"
        return Wait(key, "LEDGER_FULL", why, final=True)

    def _is_pinned(self, seat: Seat) -> bool:
        wanted = self.wants.get(seat.key)
        return wanted.pinned if wanted is not None else seat.pinned


def _not_ready(key: VersionKey, version: ModelVersion | None) -> Iterable[Wait]:
    if version is None:
        return
    if version.state is VersionState.FAILED:
        why = f"the import of {key} failed: {version.reason}: {version.message}"
        yield Wait(key, "MODEL_IMPORT_FAILED", why, final=True)
    else:
        yield Wait(key, "MODEL_NOT_READY", f"{key} is {version.state}: wait for its import")


def _too_large(key: VersionKey, benches: list[Bench], sizes: Mapping[str, Footprint]) -> Wait:
    largest = max(benches, key=lambda b: (b.room_bytes, b.worker.id))
    size = sizes[largest.worker.id]
    why = (
        f"{key} needs {size.weights_bytes + size.workspace_bytes} bytes and the largest worker, "
        f"{largest.worker.id}, has {largest.room_bytes} for models: raise its memory budget"
    )
    return Wait(key, "MODEL_TOO_LARGE", why, final=True)

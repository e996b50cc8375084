"""A device, its thread and its packs on virtual time: what takes time says so, nothing sleeps.

The engine is the worker's own with its thread replaced: it takes its work by the same rules, and
is busy for as long as the work says.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.sizes import COPY_BYTES_PER_S, PASS_PARAMETERS, PASS_S, Model
from worker.backends.simulated import SimulatedBackend, SimulatedModel, TimeCurve
from worker.batching.queue import Dequeued
from worker.engine.engine import Engine
from worker.engine.jobs import Job
from worker.engine.runner import BatchRunner
from worker.packs.host_memory import HostMemory
from worker.packs.pack import Pack
from yolopool.errors import PackNotFound
from yolopool.v1 import pack_pb2
from yolopool.v1.worker_pb2 import PackLocation

# Sides of an image. Time comes from the curve and not from pixels, so they are few.
SIDE = 32


class _NothingToDo(Exception):
    """The device thread would sleep now."""


class _Bell(threading.Condition):
    """What the device thread waits on; here a ring is a turn of the loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def notify(self, n: int = 1) -> None:
        self._ring()

    def wait(self, timeout: float | None = None) -> bool:
        raise _NothingToDo


class VirtualEngine(Engine):
    """No thread: work is run when the device is free, its answers come when its time is over."""

    def __init__(self, capacity: int, loop: VirtualLoop) -> None:
        super().__init__(capacity, clock=loop.now)
        self._runner = BatchRunner(self, lambda finish: finish(), loop.now)
        self._changed = _Bell(self._ring)
        self._loop_of_all = loop
        self._is_busy = False
        self._is_rung = False
        self.is_dead = False

    def start(self) -> None:
        """There is no thread."""

    def _ring(self) -> None:
        if not self._is_busy and not self._is_rung:
            self._is_rung = True
            self._loop_of_all.call_soon(self._take_work)

    def _take_work(self) -> None:
        self._is_rung = False
        if self._is_busy or self.is_dead:
            return
        try:
            work = self._next()
        except _NothingToDo:
            return
        if work is not None:
            self._is_busy = True
            seconds = self._loop_of_all.took(partial(self._do, work))
            self._loop_of_all.call_later(seconds, self._done)

    def _done(self) -> None:
        self._is_busy = False
        self._ring()

    def _do(self, work: Job | Dequeued[Any]) -> None:
        if isinstance(work, Job):
            work.run()
            return
        self._answer_late(work)
        if work.batch is not None:
            self._run(work.batch)


@dataclass(frozen=True, slots=True)
class SizeCurve(TimeCurve):
    """A pass takes the time of its size whatever the image, a load that of copying its bytes."""

    # Each further image of a pass costs so much of the first.
    more: float = 0.25

    def pass_s(self, shape: tuple[int, int], images: int, parameters: int) -> float:
        one = PASS_S * (max(parameters, 1) / PASS_PARAMETERS) ** 0.6
        return float(one * (1 + self.more * (images - 1)))

    def load_s(self, size_bytes: int) -> float:
        return size_bytes / COPY_BYTES_PER_S


class VirtualBackend(SimulatedBackend):
    """A device of any size, since the ledger is what bounds it; `moved` is told the digest of a
    pack that came to it or left it, and which.
    """

    def __init__(
        self, loop: VirtualLoop, moved: Callable[[str, bool], None], curve: TimeCurve | None = None
    ) -> None:
        super().__init__(0, 2**50, curve or SizeCurve(), sleep=loop.spend)
        self.moved = moved

    def load(self, pack: Pack, precision: str) -> SimulatedModel:
        super().load(pack, precision)
        self.moved(pack.digest, True)
        return _VirtualModel(self, pack, self.moved)


class _VirtualModel(SimulatedModel):
    def __init__(
        self, backend: VirtualBackend, pack: Pack, moved: Callable[[str, bool], None]
    ) -> None:
        super().__init__(backend, pack)
        self._digest = pack.digest
        self._tell: Callable[[str, bool], None] | None = moved

    def close(self) -> None:
        super().close()
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(self._digest, False)


class CountedMemory(HostMemory):
    """Bytes that are only counted."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def close(self) -> None:
        """There is nothing to give back."""


class Store:
    """Packs of all models by digest, and whether the store answers."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.is_away = False
        self.packs = {digest: (_pack(digest, model), model) for digest, model in models.items()}

    def find(self, digest: str) -> tuple[Pack, Model]:
        if self.is_away:
            raise PackNotFound("the store does not answer: wait until it does")
        return self.packs[digest]


class VirtualPacks:
    """Satisfies `pack_reader.PackSource`. `keeps`: what was fetched once stays in a local cache,
    else it is fetched again for every load. `took` is told the digest of a pack and the seconds
    that fetching or reading it took; not of fetching what is kept, which happens once.
    """

    def __init__(
        self, store: Store, loop: VirtualLoop, *, keeps: bool, took: Callable[[str, float], None]
    ) -> None:
        self._store = store
        self._loop = loop
        self._keeps = keeps
        self._took = took
        self._here: dict[str, Pack] = {}

    def prepare(self, location: PackLocation) -> Pack:
        """From the store to this machine; answers the pack without weights."""
        pack = self._here.get(location.digest)
        if pack is None:
            pack, model = self._store.find(location.digest)
            self._loop.spend(model.fetch_s)
            if self._keeps:
                self._here[location.digest] = pack
            else:
                self._took(location.digest, model.fetch_s)
        return pack

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack:
        pack, model = self._store.packs[location.digest]  # prepared: it is on this machine
        if not weights:
            return pack
        self._loop.spend(model.read_s)
        self._took(location.digest, model.read_s)
        return replace(pack, memory=CountedMemory(model.weights_bytes))


def _pack(digest: str, model: Model) -> Pack:
    manifest = pack_pb2.PackManifest(
        architecture_key=model.size,
        architecture=f"yolo11{model.size}",
        task="detect",
        class_names=["object"],
        stride=SIDE,
        weights_bytes=model.weights_bytes,
        parameters=model.parameters,
    )
    return Pack(digest, manifest, b"", ())

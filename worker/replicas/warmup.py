"""Warm-up passes: a runtime prepares kernels and memory when it first runs a kind of pass.

A kind is an architecture, a precision, a shape and a batch size. Warm-up runs each kind once
before requests need it. Passes run on the device thread, all else on the event loop. No pass
starts while a swap is under way, other than the swap's own.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import structlog

from worker.backends.base import Backend, LoadedModel, run
from worker.batching.estimates import Shape
from worker.engine.engine import Engine
from worker.engine.jobs import Turn
from worker.packs.manifest import channels_of
from worker.postprocess.outputs import NmsOptions
from worker.replicas.replica import Replica
from yolopool.errors import LoadFailed, OutOfMemory

log = structlog.get_logger()
Answer = TypeVar("Answer")
# The first pass prepares a runtime's kernels, the second its memory; later ones change nothing.
WARM_UP_PASSES = 3
# No batch is warmed up whose pass is expected to take longer, going by the time of one image with
# its kernels made. A request that comes meanwhile waits for the pass and for its new kernels.
MAX_WARM_UP_S = 0.5
# Kinds of passes that are warmed up on a CPU. oneDNN keeps the kernels of some 40
# (`devices.KERNELS`); more warm-up would evict kernels that requests use.
MAX_KINDS = 32

# Architecture, precision, shape, and images in the pass.
_Kind = tuple[str, str, Shape, int]


class Warmup:
    """`replicas` is the worker's table, by key; `lock` is the swapper's. `skip`: the settings ask
    for no warm-up.
    """

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        replicas: Mapping[str, Replica],
        lock: asyncio.Lock,
        skip: bool,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._backend = backend
        self._replicas = replicas
        self._lock = lock
        self._skip = skip
        self._clock = clock
        # Kinds that have run on this device, with the seconds of one image.
        self._warm_s: dict[_Kind, float] = {}
        # Digests of packs, with their precision, that have answered here as at their import.
        self._proven: set[tuple[str, str]] = set()

    async def warm_up(self, replica: Replica, model: LoadedModel) -> None:
        """Warms up passes of one image, unless the architecture has run them on this device. The
        passes take turns with the batches of other versions. The caller holds the lock.
        """
        kind = _kind(replica, replica.shape, 1)
        if self._skip or kind in self._warm_s:
            return
        before, took_s = self._engine.passes(replica.key), 0.0
        for _ in range(WARM_UP_PASSES):
            if self._engine.passes(replica.key) > before:
                break  # a ticket that waited for this model has warmed it up, in its own shape
            run_pass = partial(self._pass, replica, model, replica.shape)
            took_s = await self._engine.job(run_pass, Turn.FAIR)
        # Noted in either case: otherwise each swap under load would wait behind batches again.
        self._warm_s[kind] = took_s or self._engine.image_s(replica.key, replica.shape)

    async def prove(self, replica: Replica, model: LoadedModel) -> None:
        """Asks a graph what the import asked, once for each pack on this device. The caller holds
        the lock. Raises LoadFailed if the answer is another.
        """
        if self.is_proven(replica):
            return
        if wrong := await self._engine.job(model.self_test, Turn.IDLE):
            raise other_answer(wrong)
        self.note_proof(replica)

    def is_proven(self, replica: Replica) -> bool:
        """Whether its pack has answered here as at its import."""
        return _proof(replica) in self._proven

    def note_proof(self, replica: Replica) -> None:
        """Its pack has answered here as at its import."""
        self._proven.add(_proof(replica))

    async def warm_again(self, replica: Replica) -> str:
        """Runs one pass of a replica that has been idle, if it is still on the device, and asks it
        what the import asked; returns how the answer differs, empty: it does not. Takes the lock,
        or does nothing while a swap has it.
        """
        async with self._no_swap() as quiet:
            model = self._engine.models.get(replica.key)
            if not quiet or model is None:
                return ""
            replica.last_pass = self._clock()
            run_pass = partial(self._pass, replica, model, replica.shape)
            try:
                await self._engine.job(run_pass, Turn.IDLE)
                wrong = await self._engine.job(model.self_test, Turn.IDLE)
            except Exception as error:  # requests fail alike, and say what it means
                log.warning("no warm-up", model=replica.key, why=str(error))
                return ""
            if wrong:
                self._proven.discard(_proof(replica))
            return wrong

    async def ask(
        self, replica: Replica, question: Callable[[LoadedModel], Answer]
    ) -> Answer | None:
        """Asks a replica that is on the device a question, on the device thread, behind the batches
        that are due. None: it is not there, or a swap is under way. Takes the lock.
        """
        async with self._no_swap() as quiet:
            model = self._engine.models.get(replica.key)
            if not quiet or model is None:
                return None
            return await self._engine.job(partial(question, model), Turn.IDLE)

    async def warm_batch(self) -> None:
        """While nobody waits, runs one pass of a batch size that a version on a CPU may use and
        has not used. A CPU makes kernels for each size and shape when it first comes. That takes
        up to a second, and would otherwise happen when most requests come. Takes the lock, or does
        nothing while a swap has it.
        """
        if self._skip or self._backend.device_kind != "cpu":
            return
        if any(replica.outstanding for replica in self._replicas.values()):
            return
        async with self._no_swap() as quiet:
            if quiet and (cold := self._cold_batch()) is not None:
                await self._warm_batch(*cold)

    async def _warm_batch(
        self, replica: Replica, shape: Shape, images: int, image_s: float
    ) -> None:
        self._warm_s[_kind(replica, shape, images)] = image_s  # tried once, even if it fails
        model = self._engine.models[replica.key]
        try:
            await self._engine.job(partial(self._pass, replica, model, shape, images), Turn.IDLE)
        except Exception as error:  # the device is not lost
            log.warning("no warm-up", model=replica.key, images=images, why=str(error))
            if images > 1 and not isinstance(error, OutOfMemory):
                self._engine.run_one_by_one(replica.key)

    def _cold_batch(self) -> tuple[Replica, Shape, int, float] | None:
        """A replica on the device with a shape and a batch size that it has not run, the smallest
        first, and the seconds of one image. Shapes are those that were measured or, before any
        was, the replica's own. None: no such pass is expected to be short, or MAX_KINDS is reached.
        """
        hot = [self._replicas[key] for key in self._engine.models]
        measured = {replica.key: self._note_measured(replica) for replica in hot}
        architectures = {replica.manifest_pack.manifest.architecture_key for replica in hot}
        if sum(kind[0] in architectures for kind in self._warm_s) >= MAX_KINDS:
            return None
        for replica in hot:
            for shape in measured[replica.key] or (replica.shape,):
                known_s = self._warm_s.get(_kind(replica, shape, 1), math.inf)
                image_s = self._engine.image_s(replica.key, shape) or known_s
                sizes = replica.batching.sizes
                cold = (n for n in sizes if _kind(replica, shape, n) not in self._warm_s)
                images = next(cold, 0)
                if images and images * image_s <= MAX_WARM_UP_S:
                    return replica, shape, images, image_s
        return None

    def _note_measured(self, replica: Replica) -> Sequence[Shape]:
        """Notes the passes that requests ran as warm, and returns their shapes. Shapes larger than
        the replica's are left out: the ledger promises no memory for them.
        """
        shapes = []
        for shape, sizes in self._engine.measured(replica.key).items():
            if math.prod(shape) <= math.prod(replica.shape):
                image_s = self._engine.image_s(replica.key, shape)
                self._warm_s.update({_kind(replica, shape, images): image_s for images in sizes})
                shapes.append(shape)
        return shapes

    def _pass(self, replica: Replica, model: LoadedModel, shape: Shape, images: int = 1) -> float:
        """On the device thread: runs a pass of black images; returns the seconds it took."""
        began = self._clock()
        channels = channels_of(replica.manifest_pack.manifest)
        image = np.zeros((*shape, channels), np.uint8)
        options = NmsOptions((0.25,) * len(replica.class_names), 0.7, 300, agnostic=False)
        run(model, [image] * images, [options] * images)
        self._backend.synchronize()
        return self._clock() - began

    @asynccontextmanager
    async def _no_swap(self) -> AsyncIterator[bool]:
        """Takes the lock, and yields True; or yields False at once if a swap has it or is next.
        A swap may take minutes, and the device monitor must not wait for it.
        """
        try:
            async with asyncio.timeout(0):
                await self._lock.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()


def other_answer(wrong: str) -> LoadFailed:
    """The error of a model that answers otherwise than at its import."""
    return LoadFailed(
        f"the graph does not answer here as at its import ({wrong}): build the version for another "
        "backend, or import it again"
    )


def _proof(replica: Replica) -> tuple[str, str]:
    return (replica.manifest_pack.digest, replica.order.precision)


def _kind(replica: Replica, shape: Shape, images: int) -> _Kind:
    key = replica.manifest_pack.manifest.architecture_key
    return (key, replica.order.precision, shape, images)

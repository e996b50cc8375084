"""Brings replicas to the device and takes them off it, one at a time; keeps ledger and host tier.

`residency` decides, this carries out. The ledger is changed here and nowhere else, and a swap that
fails leaves nothing in it. Requests of what is on the device run on meanwhile.
"""

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import structlog

from worker.backends.base import Backend, LoadedModel, run
from worker.batching.estimates import Shape
from worker.engine.engine import Engine
from worker.packs import eviction
from worker.packs.pack import Pack
from worker.postprocess.outputs import NmsOptions
from worker.replicas import swap_policy
from worker.replicas.ledger import Ledger
from worker.replicas.lifecycle import ReplicaEvent, ReplicaState
from worker.replicas.replica import NOTHING, Replica
from yolopool.errors import LedgerFull, LoadFailed, OutOfMemory, YolopoolError
from yolopool.v1 import types_pb2
from yolopool.v1.worker_pb2 import PackLocation

log = structlog.get_logger()
Answer = TypeVar("Answer")
# The first prepares a runtime's kernels, the second its memory; later ones change nothing.
WARM_UP_PASSES = 3
# A pass of a batch that only warms up is expected to take no more, from what one image takes with
# its kernels made; who comes while they are made for the batch waits for that as well.
MOST_WARM_UP_S = 0.5
# Kinds of passes, of what is on a CPU, whose kernels are kept (`devices.KERNELS`): those in use are
# not to make room for others that may never be.
MOST_KINDS = 32
# Readers give way to the model's threads: a load is never what a request waits for.
READER_NICE = 10


# Architecture, precision, shape, and images of a pass.
_Kind = tuple[str, str, Shape, int]


class PackSource(Protocol):
    """Where packs come from; blocking."""

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack: ...

    def prepare(self, location: PackLocation) -> Pack: ...


@dataclass(frozen=True, slots=True)
class TierLimits:
    """`two`: host memory is not the device's, so weights may stay in it beside the device, up to
    `host_bytes`. `fetch_weights`: the device wants them at all.
    """

    two: bool
    host_bytes: int
    fetch_weights: bool
    skip_warmup: bool


class Swapper:
    """All methods are of the event loop. `changed` is called when a state changes, `held` are the
    replicas by key.
    """

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        packs: PackSource,
        ledger: Ledger,
        tiers: TierLimits,
        held: Mapping[str, Replica],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        # Measured: what releases were to give back less what they gave, in bytes.
        self.not_returned_bytes = 0
        # One at a time: two swaps must not make room by the same replica.
        self.lock = asyncio.Lock()
        self._engine = engine
        self._backend = backend
        self._packs = packs
        self._tiers = tiers
        self._held = held
        self._changed = changed
        self._clock = clock
        self._unix = unix
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        # What has run on this device, with the seconds of an image.
        self._warm_s: dict[_Kind, float] = {}
        self._readers = ThreadPoolExecutor(
            2, thread_name_prefix="packs", initializer=_lower_priority
        )

    @property
    def host_bytes(self) -> int:
        return sum(one.host_bytes for one in self._held.values())

    def set_budget(self, budget_bytes: int) -> None:
        """What models may have of the device now; what is over it leaves."""
        self.ledger = self.ledger.with_budget(budget_bytes)
        self.wake()

    def wake(self) -> None:
        """Something changed that may change who is to be on the device."""
        self._wake.set()

    async def run(self) -> None:
        """Swaps for ever; cancelled between the steps of one, it leaves the rest to `close`."""
        loop = asyncio.get_running_loop()

        def wake() -> None:  # from any thread, and from a pass that outlives the loop
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._engine.watch = wake
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self.lock:
                while await self._step():
                    pass

    async def _step(self) -> bool:
        """Carries out one decision; False: there was none to carry out now."""
        decision = swap_policy.decide(self._standings(), self.ledger, self._clock())
        # A pass that ends may be what somebody waits for.
        self._engine.watching = decision is not None
        if decision is None:
            return False
        if isinstance(decision, swap_policy.Later):
            self._wake_at(decision.at)
            return False
        if isinstance(decision, swap_policy.Shrink):
            for key in decision.out:
                await self._demote(self._held[key])
            return True
        one = self._held[decision.key]
        if isinstance(decision, swap_policy.Refuse):
            if one.max_batch > 1:
                one.max_batch //= 2
            else:
                self.fail(one, decision.error)
            return True
        for key in decision.out:
            await self._demote(self._held[key])
        await self._bring_or_fail(one)
        return True

    def _wake_at(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        delay_s = max(0.0, moment - self._clock())
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._wake.set)

    def _standings(self) -> list[swap_policy.SwapCandidate]:
        demand, now = self._engine.demand(), self._clock()
        standings = []
        for one in self._held.values():
            # One that leaves is brought to the device still, for the tickets it has.
            if one.state not in (ReplicaState.WARM, ReplicaState.HOT, ReplicaState.RELEASING):
                continue
            if one.pack is None:
                continue
            hot = self.ledger.holds(one.key)
            swap_s = one.expected_swap_s()
            standings.append(
                swap_policy.SwapCandidate(
                    key=one.key,
                    claim=one.claim if hot else one.expected(),
                    hot=hot,
                    pinned=one.pinned and one.state is not ReplicaState.RELEASING,
                    wanted=one.wanted,
                    demand=demand.get(one.key),
                    hot_since=one.hot_since,
                    swap_s=swap_s,
                    worth=_kept(one, swap_s, now, now - one.hot_since).worth,
                )
            )
        return standings

    # --- to the device ------------------------------------------------------------------------

    async def _bring_or_fail(self, one: Replica) -> None:
        try:
            await self._bring(one)
        except OutOfMemory as error:
            await self._engine.job(self._backend.reclaim)
            if one.short:
                self.fail(one, error)
                return
            # The ledger said that it fits: once more, in what the device really has.
            memory = self._backend.memory()
            real = memory.used_bytes + memory.available_bytes
            self.ledger = self.ledger.with_budget(min(self.ledger.budget_bytes, real))
            log.warning("out of memory on the way to the device", model=one.key, why=error.message)
            one.short = True
            one.max_batch = max(1, one.max_batch // 2)
        except Exception as error:
            self.fail(one, error)

    async def _bring(self, one: Replica) -> None:
        """Reserve, read, copy, warm up, commit what was measured. Leaves nothing on failure."""
        claim = one.expected()
        self.ledger = self.ledger.reserve(one.key, claim)
        one.claim = claim
        self._engine.limit(one.key, one.max_batch)
        try:
            read_s = await self._read(one)
            model, copy_s = await self._engine.job(partial(self._open, one))
            one.swap_s = read_s + copy_s
            await self._warm_up(one, model)
            self._commit(one, model)
        except BaseException:
            await asyncio.shield(self._engine.job(partial(self._close, one)))
            self.ledger = self.ledger.release(one.key)
            one.claim = NOTHING
            raise
        one.hot_since, one.hot_since_unix_s = self._clock(), self._unix()
        one.swaps_total += 1
        one.wanted = one.short = False
        self._engine.note_swap(one.key, one.swap_s)
        if one.state is ReplicaState.WARM:
            self.apply(one, ReplicaEvent.PROMOTED)
        one.settled.set()
        self._trim_host(0)
        log.info(
            "hot",
            model=one.key,
            swap_ms=round(one.swap_s * 1000, 2),
            max_batch=one.max_batch,
            ledger_used_bytes=self.ledger.used_bytes,
        )

    async def _read(self, one: Replica) -> float:
        """Weights into host memory where they are not; answers the seconds it took."""
        if not self._tiers.fetch_weights or one.host_bytes:
            return 0.0
        if self._tiers.two:
            self._trim_host(one.manifest_pack.manifest.weights_bytes)

        # The wait for a thread counts: beside passes on a CPU it is most of it.
        began = self._clock()
        reading = asyncio.ensure_future(self.reader(partial(self._packs.fetch, one.order.pack)))
        try:
            one.pack = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(_close_late)
            raise
        return self._clock() - began

    async def read_ahead(self, one: Replica) -> None:
        """Weights into host memory that is free, for one that is only likely to be asked for."""
        size = one.manifest_pack.manifest.weights_bytes
        if not self._tiers.two or not self._tiers.fetch_weights:
            return
        if self.host_bytes + size > self._tiers.host_bytes:
            return
        # Not under the lock: no swap waits for what nobody asked for yet.
        pack = await self.reader(partial(self._packs.fetch, one.order.pack))
        async with self.lock:
            room = self.host_bytes + size <= self._tiers.host_bytes
            if one.state is ReplicaState.WARM and not one.host_bytes and room:
                one.pack = pack
            else:
                pack.close()

    async def reader(self, read: Callable[[], Answer]) -> Answer:
        """Runs what reads a pack on a thread that gives way to the model's."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def _open(self, one: Replica) -> tuple[LoadedModel, float]:
        """On the device thread: puts the weights there."""
        began = time.perf_counter()
        model = self._backend.load(one.manifest_pack, one.order.precision)
        self._backend.synchronize()
        if not self._tiers.two and not model.uses_host_memory:
            one.drop_weights()  # host memory is the device's, and would be taken twice
        self._engine.models[one.key] = model
        return model, time.perf_counter() - began

    async def _warm_up(self, one: Replica, model: LoadedModel) -> None:
        """Runs what its architecture has not run here: passes of one image, each behind the
        batches of others.
        """
        kind = _kind(one, one.shape, 1)
        if self._tiers.skip_warmup or kind in self._warm_s:
            return
        before, took_s = self._engine.passes(one.key), 0.0
        for _ in range(WARM_UP_PASSES):
            if self._engine.passes(one.key) > before:
                break  # a ticket that waited for it has warmed it up, in its own shape
            took_s = await self._engine.job(partial(self._pass, one, model, one.shape), idle=True)
        # Either way: else each swap under load would wait behind the batches of others again.
        self._warm_s[kind] = took_s or self._engine.image_s(one.key, one.shape)

    async def reclaim(self) -> None:
        """Gives back to the device what its backend only keeps for later."""
        await self._engine.job(self._backend.reclaim, idle=True)

    async def warm_again(self, one: Replica) -> None:
        """One pass of a replica that has been idle, if it is still on the device and no swap is
        under way.
        """
        async with self._no_swap() as quiet:
            model = self._engine.models.get(one.key)
            if quiet and model is not None:
                one.last_pass = self._clock()
                await self._engine.job(partial(self._pass, one, model, one.shape), idle=True)

    async def warm_batch(self) -> None:
        """While nobody waits, one pass of a batch size that a version on a CPU may have and has not
        had: kernels are made for each size and shape when it comes first, which takes up to a
        second, and would be when most requests come.
        """
        if self._tiers.skip_warmup or self._backend.device_kind != "cpu":
            return
        if any(one.outstanding for one in self._held.values()):
            return
        async with self._no_swap() as quiet:
            if quiet and (cold := self._cold_batch()) is not None:
                await self._warm_batch(*cold)

    async def _warm_batch(self, one: Replica, shape: Shape, images: int, image_s: float) -> None:
        self._warm_s[_kind(one, shape, images)] = image_s  # once, whatever becomes of it
        model = self._engine.models[one.key]
        try:
            await self._engine.job(partial(self._pass, one, model, shape, images), idle=True)
        except Exception as error:  # requests of that size will be told; the device is not lost
            log.warning("no warm-up", model=one.key, images=images, why=str(error))

    def _cold_batch(self) -> tuple[Replica, Shape, int, float] | None:
        """A version on the device with a shape and a number of images that it has not run, the
        smallest first, and the seconds of one image: of shapes that were measured, or before any
        was, of its own. None: none that is expected to be short, or enough for all kernels.
        """
        hot = [self._held[key] for key in self._engine.models]
        measured = {one.key: self._note_measured(one) for one in hot}
        architectures = {one.manifest_pack.manifest.architecture_key for one in hot}
        if sum(kind[0] in architectures for kind in self._warm_s) >= MOST_KINDS:
            return None
        for one in hot:
            for shape in measured[one.key] or (one.shape,):
                known_s = self._warm_s.get(_kind(one, shape, 1), math.inf)
                image_s = self._engine.image_s(one.key, shape) or known_s
                cold = (n for n in one.batching.sizes if _kind(one, shape, n) not in self._warm_s)
                images = next(cold, 0)
                if images and images * image_s <= MOST_WARM_UP_S:
                    return one, shape, images, image_s
        return None

    def _note_measured(self, one: Replica) -> Sequence[Shape]:
        """Shapes of the passes that it had; of larger ones no memory is promised."""
        shapes = []
        for shape, sizes in self._engine.measured(one.key).items():
            if math.prod(shape) <= math.prod(one.shape):
                image_s = self._engine.image_s(one.key, shape)
                self._warm_s.update({_kind(one, shape, images): image_s for images in sizes})
                shapes.append(shape)
        return shapes

    def _pass(self, one: Replica, model: LoadedModel, shape: Shape, images: int = 1) -> float:
        """On the device thread: answers the seconds that it took."""
        began = time.perf_counter()
        image = np.zeros((*shape, 3), np.uint8)
        options = NmsOptions((0.25,) * len(one.class_names), 0.7, 300, agnostic=False)
        run(model, [image] * images, [options] * images)
        self._backend.synchronize()
        return time.perf_counter() - began

    @asynccontextmanager
    async def _no_swap(self) -> AsyncIterator[bool]:
        """Keeps swaps away; False: one is under way or next. That may take minutes, for which
        whoever looks after more than this does not wait.
        """
        try:
            async with asyncio.timeout(0):
                await self.lock.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self.lock.release()

    @asynccontextmanager
    async def room_for(
        self, one: Replica, shape: tuple[int, int], batch: int
    ) -> AsyncIterator[tuple[LoadedModel, int] | None]:
        """For one pass of any batch size: keeps a replica on the device, with the working memory
        promised; answers the model and those bytes, or None: it is not there now.

        Raises LedgerFull. No swap begins inside.
        """
        async with self.lock:
            model = self._engine.models.get(one.key)
            if model is None:
                yield None
                return
            needed = model.workspace_bytes(shape, batch)
            wider = max(needed, one.claim.workspace_bytes)
            self.ledger = self.ledger.widen(one.key, wider)
            try:
                yield model, needed
            finally:
                self.ledger = self.ledger.widen(one.key, one.claim.workspace_bytes)

    def _commit(self, one: Replica, model: LoadedModel) -> None:
        """What was measured takes the place of the promise; a smaller batch where it is more."""
        while True:
            claim = replace(
                one.claim,
                weights_bytes=model.weights_bytes,
                workspace_bytes=model.workspace_bytes(one.shape, one.max_batch),
                private_bytes=model.private_bytes,
                transient_bytes=0,
            )
            try:
                self.ledger = self.ledger.commit(one.key, claim)
                break
            except LedgerFull:
                if one.max_batch == 1:
                    raise
                one.max_batch //= 2
        one.claim = claim
        self._engine.limit(one.key, one.max_batch)
        one.measured = types_pb2.Footprint(
            weights_bytes=claim.weights_bytes,
            workspace_bytes=claim.workspace_bytes,
            private_bytes=claim.private_bytes,
            max_batch=one.max_batch,
            swap_ms=one.swap_s * 1000,
            fetch_ms=one.fetch_ms,
        )

    async def rebatch(self, one: Replica, own: int) -> None:
        """Claims the workspace of the batch that is ordered from now on (`own`: this worker's),
        less where that is more than there is.
        """
        async with self.lock:
            # Not before: a larger pass would run before its memory is promised.
            one.limit_batch(own)
            model, before = self._engine.models.get(one.key), self.ledger
            if model is None or not before.holds(one.key):
                return
            try:
                self.ledger = before.release(one.key).reserve(one.key, one.claim)
                self._commit(one, model)
            except LedgerFull:  # over its budget already: what is held stays as it is
                self.ledger, one.max_batch = before, 1
                self._engine.limit(one.key, 1)

    # --- off the device -----------------------------------------------------------------------

    async def _demote(self, one: Replica) -> None:
        # Before the wait: a ticket that comes now finds it WARM, and asks for it again.
        if one.state is ReplicaState.HOT:
            self.apply(one, ReplicaEvent.DEMOTED)
            one.settled.clear()
        await self.leave(one)
        self._trim_host(0)
        log.info("warm", model=one.key, ledger_used_bytes=self.ledger.used_bytes)

    async def leave(self, one: Replica) -> None:
        """Takes a replica off the device, if it is there, and gives its bytes back."""
        expected = one.claim if self.ledger.holds(one.key) else NOTHING
        freed = await self._engine.job(partial(self._close, one))
        self.ledger = self.ledger.release(one.key)
        one.claim = NOTHING
        one.max_batch = one.batch_limit
        missing = expected.weights_bytes + expected.private_bytes - freed
        self.not_returned_bytes += missing
        log.debug("left the device", model=one.key, freed_bytes=freed, missing_bytes=missing)

    def _close(self, one: Replica) -> int:
        """On the device thread: drops the model; answers the bytes that came back, measured."""
        before = self._backend.memory().used_bytes
        model = self._engine.models.pop(one.key, None)
        if model is not None:
            model.close()
        if not self._tiers.two:
            one.drop_weights()  # host memory is the device's
        return before - self._backend.memory().used_bytes

    def _trim_host(self, need_bytes: int) -> None:
        """Drops host memory of the least worth, until `need_bytes` more are within the budget."""
        if not self._tiers.two:
            return
        now = self._clock()
        kept = [
            _kept(one, one.expected_swap_s(), now, 0.0)
            for one in self._held.values()
            if one.host_bytes
        ]
        for key in eviction.choose_evictions(kept, need_bytes, self._tiers.host_bytes).keys:
            self._held[key].drop_weights()

    # --- ends ---------------------------------------------------------------------------------

    def fail(self, one: Replica, error: Exception) -> None:
        """The load or the swap came to nothing: all who wait for the version hear why."""
        if not isinstance(error, YolopoolError):
            log.error("load failed", model=one.key, exc_info=error)
            error = LoadFailed(f"{type(error).__name__} while loading: see the worker's log")
        log.warning("load failed", model=one.key, reason=error.reason, why=error.message)
        one.wanted = one.short = False
        one.drop_weights()
        one.claim = NOTHING
        if one.state is not ReplicaState.RELEASING:
            one.error = error
            self.apply(one, ReplicaEvent.FAIL)
        self._engine.refuse(one.key, error)
        one.settled.set()

    def apply(self, one: Replica, event: ReplicaEvent) -> None:
        one.life = one.life.apply(event)
        self._changed()

    async def close(self, limit_s: float) -> None:
        """Ends the readers and gives all host memory back, behind every pass that is under way or
        waits: whoever asked for it may be cancelled, it reads its weights. Returns after `limit_s`
        at the latest.
        """
        if self._alarm is not None:
            self._alarm.cancel()
        self._readers.shutdown(wait=False, cancel_futures=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._engine.job(partial(self._drop, tuple(self._held.values())), idle=True)

    def _drop(self, held: Sequence[Replica]) -> None:
        """On the device thread: what comes later finds no model."""
        self._engine.models.clear()
        for one in held:
            one.drop_weights()


def _kept(one: Replica, swap_s: float, now: float, held_s: float) -> eviction.CacheEntry:
    size, rate = one.manifest_pack.manifest.weights_bytes, one.arrivals.now(now).estimate
    return eviction.CacheEntry(one.key, size, swap_s, rate, one.last_used_unix_s, held_s)


def _close_late(reading: "asyncio.Future[Pack]") -> None:
    if not reading.cancelled() and reading.exception() is None:
        reading.result().close()


def _lower_priority() -> None:
    # Linux keeps it by thread.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), READER_NICE)


def _kind(one: Replica, shape: Shape, images: int) -> _Kind:
    return (one.manifest_pack.manifest.architecture_key, one.order.precision, shape, images)

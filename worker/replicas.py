"""The versions this worker holds: loaded once however many ask, released behind their last ticket.

The ledger is changed here and nowhere else: a load that fails leaves nothing in it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
import structlog

from worker.backends.base import Backend, LoadedModel, NmsOptions
from worker.engine import Engine
from worker.ledger import Claim, Ledger
from worker.lifecycle import SERVING, Life, ReplicaEvent, ReplicaState
from worker.packs import Pack
from worker.residency import Demote, Resident, make_room
from yolopool.errors import (
    Draining,
    LedgerFull,
    LoadFailed,
    NotAssigned,
    QueueFull,
    YolopoolError,
)
from yolopool.v1 import types_pb2
from yolopool.v1.worker_pb2 import PackLocation

log = structlog.get_logger()
WARM_UP_PASSES = 3
CLOSING_S = 1.0
NOTHING = Claim(0)


class PackSource(Protocol):
    """Where packs come from; blocking."""

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What an Assign asks for."""

    key: str  # name@version
    model: str
    number: int
    settings: types_pb2.VersionSettings
    pack: PackLocation
    precision: str
    max_batch: int
    pinned: bool

    def means(self, other: "Order") -> bool:
        """Whether both ask for the same answers. A version never changes, but the store that
        numbers them may have been emptied and begun anew.
        """
        return (self.pack.digest, self.settings, self.precision) == (
            other.pack.digest,
            other.settings,
            other.precision,
        )


@dataclass(slots=True, eq=False)
class Replica:
    """One version on this worker. Times `*_unix_s` are for people and plans."""

    order: Order
    life: Life
    pinned: bool
    max_batch: int
    claim: Claim = NOTHING
    pack: Pack | None = None
    class_names: tuple[str, ...] = ()
    stride: int = 32
    shape: tuple[int, int] = (0, 0)
    outstanding: int = 0
    requests_total: int = 0
    loads_total: int = 0
    last_used_unix_s: float = 0.0
    load_s: float = 0.0
    error: YolopoolError | None = None
    work: "asyncio.Task[None] | None" = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> ReplicaState:
        return self.life.state


@dataclass(frozen=True, slots=True)
class Limits:
    """`two_tiers`: host memory is not the device's, so a replica may be WARM beside it;
    `promoting` requests wait at most for replicas on their way to the device.
    """

    max_batch: int
    promoting: int
    skip_warmup: bool
    two_tiers: bool
    fetch_weights: bool


class Replicas:
    """All methods are of the event loop; `changed` is called when a state changes."""

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        packs: PackSource,
        ledger: Ledger,
        limits: Limits,
        changed: Callable[[], None],
        unix: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.draining = False
        self._engine = engine
        self._backend = backend
        self._packs = packs
        self._limits = limits
        self._changed = changed
        self._unix = unix
        self._held: dict[str, Replica] = {}
        self._loads_total: dict[str, int] = {}
        self._promoting = 0
        # One at a time: two promotions must not make room by the same replica.
        self._device = asyncio.Lock()

    def held(self) -> tuple[Replica, ...]:
        return tuple(self._held.values())

    @property
    def outstanding(self) -> int:
        return sum(replica.outstanding for replica in self._held.values())

    async def assign(self, order: Order) -> Replica:
        """Loads a version, or joins the load under way, or answers what is there.

        Raises LedgerFull, OutOfMemory, PackNotFound, PackInvalid, DigestMismatch, LoadFailed.
        """
        if self.draining:
            raise Draining("this worker is ending: assign to another")
        while (replica := self._held.get(order.key)) is not None:
            if replica.state is ReplicaState.FAILED:
                break
            if replica.state is not ReplicaState.RELEASING and replica.order.means(order):
                break
            await self.release(order.key)  # or wait for the one under way
        if replica is None:
            replica = Replica(order, Life(order.key), order.pinned, order.max_batch)
            self._held[order.key] = replica
            replica.work = asyncio.create_task(self._load(replica))
        elif replica.state is ReplicaState.FAILED:
            replica.order = order
            replica.life = replica.life.apply(ReplicaEvent.RETRY)
            replica.work = asyncio.create_task(self._load(replica))
        replica.pinned = order.pinned
        if replica.work is not None:
            await asyncio.shield(replica.work)  # WARM on its way is not loaded yet
        if replica.error is not None:
            raise replica.error
        return replica

    async def release(self, key: str) -> int:
        """Drops a version behind its last ticket; answers the weights bytes given back."""
        replica = self._held.get(key)
        if replica is None:
            return 0
        if replica.work is not None:
            await asyncio.shield(replica.work)  # a load to its end, or another's release
        if self._held.get(key) is not replica:
            return 0
        async with self._device:  # not between the steps of a promotion
            size = replica.claim.weights_bytes if self.ledger.holds(key) else 0
            if replica.state is not ReplicaState.RELEASING:
                self._apply(replica, ReplicaEvent.RELEASE)
                replica.work = asyncio.create_task(self._drop(replica))
            released = replica.work
        assert released is not None, "a RELEASING replica has its release under way"
        await asyncio.shield(released)
        return size

    @contextmanager
    def ticket(self, key: str) -> Iterator[Replica]:
        """Holds a replica in place for one request. Raises NotAssigned."""
        replica = self._held.get(key)
        if replica is None or replica.state not in SERVING:
            state = replica.state if replica is not None else "not here"
            raise NotAssigned(f"{key} is {state} on this worker: ask another, or assign it first")
        replica.outstanding += 1
        replica.requests_total += 1
        replica.last_used_unix_s = self._unix()
        try:
            yield replica
        finally:
            replica.outstanding -= 1
            if replica.outstanding == 0:
                replica.idle.set()

    async def ensure_hot(self, replica: Replica) -> None:
        """Brings a WARM replica to the device, once for all who wait. Raises as `assign` does,
        and QueueFull: each who waits holds an image.
        """
        if replica.state is not ReplicaState.WARM:
            return
        if self._promoting >= self._limits.promoting:
            raise QueueFull(f"{self._promoting} requests wait for models on their way: ask another")
        self._promoting += 1
        try:
            async with self._device:
                if replica.state is ReplicaState.WARM:
                    await self._promote(replica)
        finally:
            self._promoting -= 1

    async def close(self) -> None:
        """Drops everything, tickets or not: the process ends, with or without a load's end."""
        work = [replica.work for replica in self._held.values() if replica.work is not None]
        if work:
            await asyncio.wait(work, timeout=CLOSING_S)
        for replica in list(self._held.values()):
            if replica.pack is not None:
                replica.pack.close()

    # --- one load --------------------------------------------------------------------------

    async def _load(self, replica: Replica) -> None:
        began = time.monotonic()
        replica.error = None
        self._changed()
        key = replica.order.key
        self._loads_total[key] = replica.loads_total = self._loads_total.get(key, 0) + 1
        try:
            replica.pack = await asyncio.to_thread(
                self._packs.fetch, replica.order.pack, self._limits.fetch_weights
            )
            self._read_manifest(replica, replica.pack)
            self._apply(replica, ReplicaEvent.FETCHED)
            async with self._device:
                await self._promote(replica)
        except Exception as error:
            self._fail(replica, error)
            return
        replica.load_s = time.monotonic() - began
        log.info(
            "loaded",
            model=key,
            load_ms=round(replica.load_s * 1000, 1),
            weights_bytes=replica.claim.weights_bytes,
            ledger_used_bytes=self.ledger.used_bytes,
        )

    def _read_manifest(self, replica: Replica, pack: Pack) -> None:
        manifest = pack.manifest
        replica.class_names = tuple(manifest.class_names)
        replica.stride = max(manifest.stride, 32)
        # Beyond whole strides, as `letterbox` rounds.
        size = -(-replica.order.settings.image_size // replica.stride) * replica.stride
        replica.shape = (size, size)
        limit = min(replica.order.max_batch or self._limits.max_batch, self._limits.max_batch)
        replica.max_batch = max(1, limit)

    async def _promote(self, replica: Replica) -> None:
        """Reserve, copy, warm up, commit what was measured. Leaves nothing behind on failure."""
        pack, key = replica.pack, replica.order.key
        assert pack is not None, "a WARM replica has its pack in host memory"
        await self._reserve(replica, pack)
        try:
            model = await self._engine.job(partial(self._open, replica, pack))
            if not self._limits.skip_warmup:
                # Jobs of their own: the batches of other models run in between.
                for _ in range(WARM_UP_PASSES):
                    await self._engine.job(partial(self._warm_up, replica, model))
            replica.claim = replace(
                replica.claim,
                weights_bytes=model.weights_bytes,
                workspace_bytes=model.workspace_bytes(replica.shape, replica.max_batch),
            )
            self.ledger = self.ledger.commit(key, replica.claim)
        except BaseException:
            await self._engine.job(partial(self._close_model, key))
            self.ledger = self.ledger.release(key)
            raise
        self._apply(replica, ReplicaEvent.PROMOTED)

    async def _reserve(self, replica: Replica, pack: Pack) -> None:
        """Promises the bytes; the batch is made smaller where only its workspace is too much."""
        while True:
            replica.claim = _claim(pack, replica.shape, replica.max_batch)
            try:
                self.ledger = self.ledger.reserve(replica.order.key, replica.claim)
                return
            except LedgerFull as refusal:
                if await self._make_room(replica):
                    continue
                if replica.max_batch == 1:
                    raise refusal
                replica.max_batch //= 2

    async def _make_room(self, replica: Replica) -> bool:
        """Takes others off the device where that is another memory than the host's."""
        if not self._limits.two_tiers:
            return False
        hot = [one for one in self._held.values() if one.state is ReplicaState.HOT]
        residents = [
            Resident(one.order.key, one.pinned, one.outstanding, one.last_used_unix_s)
            for one in hot
        ]
        decision = make_room(replica.order.key, replica.claim, self.ledger, residents)
        if not isinstance(decision, Demote):
            return False
        for key in decision.keys:
            # Before the wait: a request that comes now finds it WARM and promotes it again.
            self._apply(self._held[key], ReplicaEvent.DEMOTED)
            await self._engine.job(partial(self._close_model, key))
            self.ledger = self.ledger.release(key)
        return bool(decision.keys)

    def _open(self, replica: Replica, pack: Pack) -> LoadedModel:
        """On the device thread: puts the weights there."""
        model = self._backend.load(pack, replica.order.precision)
        self._engine.models[replica.order.key] = model
        return model

    def _warm_up(self, replica: Replica, model: LoadedModel) -> None:
        """On the device thread: one pass, so that no request pays for what is done once."""
        image = np.zeros((*replica.shape, 3), np.uint8)
        options = NmsOptions((0.25,) * len(replica.class_names), 0.7, 300, agnostic=False)
        model.run([image], [options])
        self._backend.synchronize()

    def _close_model(self, key: str) -> None:
        model = self._engine.models.pop(key, None)
        if model is not None:
            model.close()

    def _fail(self, replica: Replica, error: Exception) -> None:
        if not isinstance(error, YolopoolError):
            log.error("load failed", model=replica.order.key, exc_info=error)
            error = LoadFailed(f"{type(error).__name__} while loading: see the worker's log")
        replica.error = error
        log.warning("load failed", model=replica.order.key, reason=error.reason, why=error.message)
        if replica.pack is not None:
            replica.pack.close()
            replica.pack = None
        replica.claim = NOTHING
        self._apply(replica, ReplicaEvent.FAIL)

    async def _drop(self, replica: Replica) -> None:
        key = replica.order.key
        while replica.outstanding:
            replica.idle.clear()
            await replica.idle.wait()
        await self._engine.job(partial(self._close_model, key))
        if replica.pack is not None:
            replica.pack.close()
        self.ledger = self.ledger.release(key)
        self._engine.forget(key)
        del self._held[key]
        self._changed()
        log.info("released", model=key, ledger_used_bytes=self.ledger.used_bytes)

    def _apply(self, replica: Replica, event: ReplicaEvent) -> None:
        replica.life = replica.life.apply(event)
        self._changed()


def _claim(pack: Pack, shape: tuple[int, int], batch: int) -> Claim:
    """What the manifest says, until it is measured: activations by the import's figure, and the
    input as uint8 and as float32.
    """
    pixels = shape[0] * shape[1] * batch
    activations = pixels * pack.manifest.activation_bytes_per_megapixel // 10**6
    return Claim(pack.manifest.weights_bytes, activations + pixels * 3 * (1 + 4))

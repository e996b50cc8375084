"""The versions this worker holds: each is loaded once, and released behind its last ticket.

The swapper decides which of them are on the device; a version that waits for its turn takes
tickets already.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import structlog

from worker.engine.engine import Engine
from worker.packs.pack import Pack
from worker.replicas.lifecycle import SERVING, TABLE, ReplicaEvent
from worker.replicas.replica import Assignment, Replica
from worker.replicas.swapper import Swapper
from yolopool.errors import Draining, LedgerFull, NotAssigned
from yolopool.server.arrival_rates import Arrivals
from yolopool.server.clock import Clock
from yolopool.server.state_machine import Life
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()
CLOSING_S = 1.0


def _forced_out(key: str) -> NotAssigned:
    """The answer to tickets of a version released by force; not retried on another worker."""
    why = f"{key} was unloaded by force before this request was run: send it again to load it anew"
    return NotAssigned(why, details={"forced": "true"})


class ReplicaTable:
    """All methods run on the event loop. `replicas` is the worker's one table, by key; `changed`
    is called when a state changes; at most `assignable_bytes` of weights are accepted in all.
    `prepare` makes a pack ready to be read here, and returns it without its weights; blocking.
    """

    def __init__(
        self,
        replicas: dict[str, Replica],
        swapper: Swapper,
        engine: Engine,
        prepare: Callable[[PackLocation], Pack],
        max_batch: int,
        assignable_bytes: int,
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.draining = False
        self.assignable_bytes = assignable_bytes
        self._replicas = replicas
        self._swapper = swapper
        self._engine = engine
        self._prepare = prepare
        self._max_batch = max_batch
        self._changed = changed
        self._clock = clock
        self._began = clock.monotonic()
        self._loads_total: dict[str, int] = {}
        # Packs that this process fetched once: a second time takes no time.
        self._fetched: set[str] = set()

    def drain(self) -> None:
        """Refuses new assignments from now on, and tells the control planes so at once."""
        self.draining = True
        self._changed()

    def held(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    async def assign(self, order: Assignment) -> Replica:
        """Loads a version, or joins the load under way, or returns what is there; returns once it
        was HOT, or is WARM if no more is ordered.

        Raises LedgerFull, OutOfMemory, PackNotFound, PackInvalid, DigestMismatch, LoadFailed,
        and NotAssigned if it is released meanwhile.
        """
        if self.draining:
            raise Draining("this worker is ending: assign to another")
        replica = await self._find_or_load(order)
        if replica.pinned != order.pinned:
            replica.pinned = order.pinned
            self._swapper.wake()
            self._changed()
        if replica.work is not None:
            await asyncio.shield(replica.work)  # a replica that is WARM may be loading still
        if replica.error is not None:
            raise replica.error
        await self._rebatch(replica, order)
        if order.warm:
            return replica
        if replica.state is ReplicaState.WARM and not replica.swaps_total:
            await self.promote(replica)
            if replica.error is not None:
                raise replica.error
        if not replica.swaps_total:
            raise NotAssigned(f"{order.key} was released while it waited for its turn")
        return replica

    async def _rebatch(self, replica: Replica, order: Assignment) -> None:
        """Applies new batching settings to a replica, without a load or a gap in service."""
        if replica.order.batching == order.batching:
            return
        replica.order = replace(replica.order, batching=order.batching)
        replica.control = None
        await self._swapper.rebatch(replica, self._max_batch)
        self._changed()

    async def promote(self, replica: Replica) -> None:
        """Asks for a WARM replica to be HOT; returns when it is, has failed or is to leave."""
        replica.settled.clear()
        replica.wanted = True
        self._swapper.wake()
        await replica.settled.wait()

    async def _find_or_load(self, order: Assignment) -> Replica:
        """The replica for an order, whose load is done or under way."""
        while (replica := self._replicas.get(order.key)) is not None:
            if replica.state is ReplicaState.FAILED:
                replica.order = order
                replica.life = replica.life.apply(TABLE, ReplicaEvent.RETRY)
                replica.work = asyncio.create_task(self._load(replica))
                return replica
            if replica.state is not ReplicaState.RELEASING and replica.order.means(order):
                return replica
            await self.release(order.key)  # or wait for the one under way
        replica = Replica(order, Life(order.key, ReplicaState.ASSIGNED), order.pinned)
        replica.arrivals = Arrivals(since=self._began)
        self._replicas[order.key] = replica
        replica.work = asyncio.create_task(self._load(replica))
        return replica

    async def release(self, key: str, force: bool = False) -> int:
        """Drops a version behind its last ticket, or with `force` behind the pass under way, its
        other tickets refused; returns the bytes of weights that were released. Takes the swap lock.
        """
        replica = self._replicas.get(key)
        if replica is None:
            return 0
        await replica.fetched.wait()  # not in the middle of a file
        async with self._swapper.lock:  # not between the steps of a swap
            if self._replicas.get(key) is not replica:
                return 0
            size = replica.claim.weights_bytes
            if replica.state is not ReplicaState.RELEASING:
                self._swapper.apply(replica, ReplicaEvent.RELEASE)
                replica.wanted = False
                replica.settled.set()
                replica.work = asyncio.create_task(self._drop(replica))
            if force:
                # Requests whose images are being decoded are refused too.
                self._engine.refuse(key, _forced_out(key))
            released = replica.work
        assert released is not None, "a RELEASING replica has its release under way"
        await asyncio.shield(released)
        return size

    @contextmanager
    def ticket(self, key: str) -> Iterator[Replica]:
        """Keeps a replica from being dropped for one request, and counts the request. Raises
        NotAssigned.
        """
        with self.hold(key) as replica:
            replica.requests_total += 1
            replica.hits_total += replica.state is ReplicaState.HOT
            now = self._clock.monotonic()
            replica.arrivals = replica.arrivals.arrived(now)
            replica.last_pass = now
            yield replica

    @contextmanager
    def hold(self, key: str) -> Iterator[Replica]:
        """Keeps a replica from being dropped. Raises NotAssigned."""
        replica = self._replicas.get(key)
        if replica is None or replica.state not in SERVING:
            state = replica.state if replica is not None else "not here"
            raise NotAssigned(f"{key} is {state} on this worker: ask another, or assign it first")
        replica.outstanding += 1
        replica.last_used_unix_s = self._clock.unix()
        try:
            yield replica
        finally:
            replica.outstanding -= 1
            if replica.outstanding == 0:
                replica.idle.set()

    async def close(self) -> None:
        """Drops everything, whatever tickets or loads are left: the process ends."""
        work = [replica.work for replica in self._replicas.values() if replica.work is not None]
        for replica in self._replicas.values():
            replica.settled.set()
        if work:
            await asyncio.wait(work, timeout=CLOSING_S)
        await self._swapper.close(CLOSING_S)

    # --- one load --------------------------------------------------------------------------

    async def _load(self, replica: Replica) -> None:
        began = self._clock.monotonic()
        replica.error = None
        replica.settled.clear()
        replica.fetched.clear()
        self._engine.accept(replica.key)
        self._changed()
        key = replica.key
        self._loads_total[key] = replica.loads_total = self._loads_total.get(key, 0) + 1
        try:
            self._read_manifest(replica, await self._fetch(replica))
        except Exception as error:
            self._swapper.fail(replica, error)
            return
        finally:
            replica.fetched.set()
        replica.wanted = not replica.order.warm
        self._swapper.apply(replica, ReplicaEvent.FETCHED)
        self._swapper.wake()
        if replica.order.warm:
            try:
                await self._swapper.reader.prefetch(replica)
            except Exception as error:  # it is read when its turn comes
                log.warning("not prefetched", model=key, why=str(error))
            return
        await replica.settled.wait()
        if replica.state is ReplicaState.HOT:
            replica.load_s = self._clock.monotonic() - began
            log.info("loaded", model=key, load_ms=round(replica.load_s * 1000, 1))

    async def _fetch(self, replica: Replica) -> Pack:
        """Fetches the pack to this machine; the first time, notes how long that takes."""
        began = self._clock.monotonic()
        pack = await self._swapper.reader.run(partial(self._prepare, replica.order.pack))
        digest = replica.order.pack.digest
        if digest not in self._fetched:
            self._fetched.add(digest)
            replica.fetch_s = self._clock.monotonic() - began
        return pack

    def _read_manifest(self, replica: Replica, pack: Pack) -> None:
        manifest = pack.manifest
        others = sum(
            other.pack.manifest.weights_bytes
            for other in self._replicas.values()
            if other is not replica
            and other.pack is not None
            and other.state is not ReplicaState.FAILED
        )
        if others + manifest.weights_bytes > self.assignable_bytes:
            raise LedgerFull(
                f"{manifest.weights_bytes} bytes of weights do not fit beside the {others} bytes "
                f"that are assigned here, of at most {self.assignable_bytes} (--pack-cache)"
            )
        replica.pack = pack
        replica.class_names = tuple(manifest.class_names)
        replica.stride = max(manifest.stride, 32)
        # The largest image that a request may ask for, in whole strides as `letterbox` rounds.
        settings = replica.order.settings
        largest = max(settings.image_size, *settings.image_sizes, 0)
        sides = settings.image_height or largest, settings.image_width or largest
        height, width = (-(-side // replica.stride) * replica.stride for side in sides)
        replica.shape = (height, width)
        replica.limit_batch(self._max_batch)

    async def _drop(self, replica: Replica) -> None:
        key = replica.key
        while replica.outstanding:
            replica.idle.clear()
            await replica.idle.wait()
        await self._swapper.side_load.until_done(key)
        async with self._swapper.lock:
            await self._swapper.unload(replica)
        replica.drop_weights()
        self._engine.forget(key)
        del self._replicas[key]
        self._changed()
        self._swapper.wake()
        log.info(
            "released",
            model=key,
            ledger_used_bytes=self._swapper.ledger.used_bytes,
            not_returned_bytes=self._swapper.not_returned_bytes,
        )

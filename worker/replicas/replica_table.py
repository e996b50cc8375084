"""The versions this worker holds: loaded once however many ask, released behind their last ticket.

What is on the device now is decided by turns (`swapper`); a version that waits for its turn takes
tickets already.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import structlog

from worker.engine.engine import Engine
from worker.packs.pack import Pack
from worker.replicas.lifecycle import SERVING, Life, ReplicaEvent, ReplicaState
from worker.replicas.replica import Assignment, Replica
from worker.replicas.swapper import Swapper
from yolopool.errors import Draining, LedgerFull, NotAssigned
from yolopool.server.arrival_rates import Arrivals
from yolopool.v1.worker_pb2 import PackLocation

log = structlog.get_logger()
CLOSING_S = 1.0


def _forced_out(key: str) -> NotAssigned:
    """What the tickets of a version hear that is released by force; not to be tried elsewhere."""
    why = f"{key} was unloaded by force before this request was run: send it again to load it anew"
    return NotAssigned(why, details={"forced": "true"})


class ReplicaTable:
    """All methods are of the event loop. `held` is the worker's one table of replicas; `changed`
    is called when a state changes; at most `assignable_bytes` of weights are taken in all.
    `prepare` makes a pack ready to be read here, and answers it without its weights; blocking.
    """

    def __init__(
        self,
        held: dict[str, Replica],
        swapper: Swapper,
        engine: Engine,
        prepare: Callable[[PackLocation], Pack],
        max_batch: int,
        assignable_bytes: int,
        changed: Callable[[], None],
        unix: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.draining = False
        self.assignable_bytes = assignable_bytes
        self._held = held
        self._swapper = swapper
        self._engine = engine
        self._prepare = prepare
        self._max_batch = max_batch
        self._changed = changed
        self._unix = unix
        self._clock = clock
        self._began = clock()
        self._loads_total: dict[str, int] = {}
        # Packs that this process brought here once: a second time takes no time.
        self._fetched: set[str] = set()

    def drain(self) -> None:
        """Takes nothing new from now on, and says so at once."""
        self.draining = True
        self._changed()

    def held(self) -> tuple[Replica, ...]:
        return tuple(self._held.values())

    async def assign(self, order: Assignment) -> Replica:
        """Loads a version, or joins the load under way, or answers what is there; returns when it
        was HOT (or beside the device, if no more is ordered).

        Raises LedgerFull, OutOfMemory, PackNotFound, PackInvalid, DigestMismatch, LoadFailed,
        and NotAssigned if it is released meanwhile.
        """
        if self.draining:
            raise Draining("this worker is ending: assign to another")
        replica = await self._begun(order)
        if replica.pinned != order.pinned:
            replica.pinned = order.pinned
            self._swapper.wake()
            self._changed()
        if replica.work is not None:
            await asyncio.shield(replica.work)  # WARM on its way is not loaded yet
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
        """Takes over how its images are to share passes, where it is and without a gap."""
        if replica.order.batching == order.batching:
            return
        replica.order = replace(replica.order, batching=order.batching)
        await self._swapper.rebatch(replica, self._max_batch)
        self._changed()

    async def promote(self, replica: Replica) -> None:
        """To the device, for one that is WARM; returns when it is HOT, failed or is to leave."""
        replica.settled.clear()
        replica.wanted = True
        self._swapper.wake()
        await replica.settled.wait()

    async def _begun(self, order: Assignment) -> Replica:
        """The replica of an order, whose load is done or under way."""
        while (replica := self._held.get(order.key)) is not None:
            if replica.state is ReplicaState.FAILED:
                replica.order = order
                replica.life = replica.life.apply(ReplicaEvent.RETRY)
                replica.work = asyncio.create_task(self._load(replica))
                return replica
            if replica.state is not ReplicaState.RELEASING and replica.order.means(order):
                return replica
            await self.release(order.key)  # or wait for the one under way
        replica = Replica(order, Life(order.key), order.pinned)
        replica.arrivals = Arrivals(since=self._began)
        self._held[order.key] = replica
        replica.work = asyncio.create_task(self._load(replica))
        return replica

    async def release(self, key: str, force: bool = False) -> int:
        """Drops a version behind its last ticket, or with `force` behind the pass under way, its
        other tickets refused; answers the weights bytes given back.
        """
        replica = self._held.get(key)
        if replica is None:
            return 0
        await replica.fetched.wait()  # not in the middle of a file
        async with self._swapper.lock:  # not between the steps of a swap
            if self._held.get(key) is not replica:
                return 0
            size = replica.claim.weights_bytes
            if replica.state is not ReplicaState.RELEASING:
                self._swapper.apply(replica, ReplicaEvent.RELEASE)
                replica.wanted = False
                replica.settled.set()
                replica.work = asyncio.create_task(self._drop(replica))
            if force:
                # With those whose images are being decoded.
                self._engine.refuse(key, _forced_out(key), for_good=True)
            released = replica.work
        assert released is not None, "a RELEASING replica has its release under way"
        await asyncio.shield(released)
        return size

    @contextmanager
    def ticket(self, key: str) -> Iterator[Replica]:
        """Holds a replica in place for one request, and counts it. Raises NotAssigned."""
        with self.hold(key) as replica:
            replica.requests_total += 1
            replica.hits_total += replica.state is ReplicaState.HOT
            now = self._clock()
            replica.arrivals = replica.arrivals.arrived(now)
            replica.last_pass = now
            yield replica

    @contextmanager
    def hold(self, key: str) -> Iterator[Replica]:
        """Keeps a replica from being dropped. Raises NotAssigned."""
        replica = self._held.get(key)
        if replica is None or replica.state not in SERVING:
            state = replica.state if replica is not None else "not here"
            raise NotAssigned(f"{key} is {state} on this worker: ask another, or assign it first")
        replica.outstanding += 1
        replica.last_used_unix_s = self._unix()
        try:
            yield replica
        finally:
            replica.outstanding -= 1
            if replica.outstanding == 0:
                replica.idle.set()

    async def close(self) -> None:
        """Drops everything, tickets or not: the process ends, with or without a load's end."""
        work = [replica.work for replica in self._held.values() if replica.work is not None]
        for replica in self._held.values():
            replica.settled.set()
        if work:
            await asyncio.wait(work, timeout=CLOSING_S)
        await self._swapper.close(CLOSING_S)

    # --- one load --------------------------------------------------------------------------

    async def _load(self, replica: Replica) -> None:
        began = time.monotonic()
        replica.error = None
        replica.settled.clear()
        replica.fetched.clear()
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
                await self._swapper.read_ahead(replica)
            except Exception as error:  # it is read when its turn comes
                log.warning("not read ahead", model=key, why=str(error))
            return
        await replica.settled.wait()
        if replica.state is ReplicaState.HOT:
            replica.load_s = time.monotonic() - began
            log.info("loaded", model=key, load_ms=round(replica.load_s * 1000, 1))

    async def _fetch(self, replica: Replica) -> Pack:
        """Brings the pack to this machine; the first time tells what that takes."""
        began = time.monotonic()
        pack = await self._swapper.reader(partial(self._prepare, replica.order.pack))
        digest = replica.order.pack.digest
        if digest not in self._fetched:
            self._fetched.add(digest)
            replica.fetch_s = time.monotonic() - began
        return pack

    def _read_manifest(self, replica: Replica, pack: Pack) -> None:
        manifest = pack.manifest
        others = sum(
            one.pack.manifest.weights_bytes
            for one in self._held.values()
            if one is not replica and one.pack is not None and one.state is not ReplicaState.FAILED
        )
        if others + manifest.weights_bytes > self.assignable_bytes:
            raise LedgerFull(
                f"{manifest.weights_bytes} bytes of weights do not fit beside the {others} that "
                f"are assigned here: at most {self.assignable_bytes} may be (--pack-cache)"
            )
        replica.pack = pack
        replica.class_names = tuple(manifest.class_names)
        replica.stride = max(manifest.stride, 32)
        # Of the largest image that may be asked for; beyond whole strides, as `letterbox` rounds.
        settings = replica.order.settings
        largest = max(settings.image_size, *settings.image_sizes, 0)
        size = -(-largest // replica.stride) * replica.stride
        replica.shape = (size, size)
        replica.limit_batch(self._max_batch)

    async def _drop(self, replica: Replica) -> None:
        key = replica.key
        while replica.outstanding:
            replica.idle.clear()
            await replica.idle.wait()
        async with self._swapper.lock:
            await self._swapper.leave(replica)
        replica.drop_weights()
        self._engine.forget(key)
        del self._held[key]
        self._changed()
        self._swapper.wake()
        log.info(
            "released",
            model=key,
            ledger_used_bytes=self._swapper.ledger.used_bytes,
            not_returned_bytes=self._swapper.not_returned_bytes,
        )

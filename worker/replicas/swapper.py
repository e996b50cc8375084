"""Swaps replicas onto the device and off it, one at a time.

`swap_policy` decides, the swapper acts. It alone changes the ledger, and a swap that fails leaves
nothing in it. Requests of models on the device run on meanwhile. Where a backend loads beside
passes, other swaps go on too: one such load at a time (`side_load`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from worker.backends.base import Backend, LoadedModel
from worker.concurrency.alarm import Alarm
from worker.engine.engine import Engine
from worker.engine.jobs import Turn
from worker.replicas import swap_policy
from worker.replicas.ledger import Ledger
from worker.replicas.lifecycle import TABLE, ReplicaEvent
from worker.replicas.pack_reader import PackReader, PackSource, TierLimits
from worker.replicas.replica import NOTHING, Replica
from worker.replicas.side_load import SideLoad
from worker.replicas.swap_candidates import candidate_of, may_be_swapped
from worker.replicas.usage import Evictions
from worker.replicas.warmup import Warmup
from yolopool.errors import LedgerFull, LoadFailed, OutOfMemory, YolopoolError
from yolopool.server import exhaustion
from yolopool.server.clock import Clock
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()


class Swapper:
    """`replicas` is the worker's table, by key; `changed` is called when a state changes.

    All methods run on the event loop, except those that say "on the device thread". `lock` is held
    for a whole swap but what runs beside passes, and by calls that must not run during one. Methods
    that take it say so. `_step` and what it calls, and `unload`, run under it.
    """

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        packs: PackSource,
        ledger: Ledger,
        limits: TierLimits,
        replicas: Mapping[str, Replica],
        changed: Callable[[], None],
        clock: Clock,
        skip_warmup: bool = False,
    ) -> None:
        self.ledger = ledger
        # Measured: bytes that releases should have given back, less the bytes they gave.
        self.not_returned_bytes = 0
        self.evictions = Evictions()
        # One swap at a time: two must not count on evicting the same replica.
        self.lock = asyncio.Lock()
        self.reader = PackReader(packs, limits, replicas, self.lock, clock.monotonic)
        self.warmup = Warmup(engine, backend, replicas, self.lock, skip_warmup, clock.monotonic)
        self.side_load = SideLoad(engine, backend, clock.monotonic)
        self._engine = engine
        self._backend = backend
        self._has_host_tier = limits.has_host_tier
        self._replicas = replicas
        self._changed = changed
        self._clock = clock
        self._wake = asyncio.Event()
        self._alarm = Alarm(self._wake.set, clock.monotonic)

    def set_budget(self, budget_bytes: int) -> None:
        """Sets the bytes that may be used of the device; replicas beyond it are evicted."""
        self.ledger = self.ledger.with_budget(budget_bytes)
        self.wake()

    def set_context(self, size_bytes: int) -> None:
        """Sets what the process holds beside its models; replicas beyond the budget are evicted."""
        self.ledger = replace(self.ledger, context_bytes=size_bytes)
        self.wake()

    def wake(self) -> None:
        """Asks the policy again: something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Swaps until cancelled. Takes the lock for each round. Cancelled between the steps of a
        swap, it leaves the rest to `close`.
        """
        loop = asyncio.get_running_loop()

        def wake() -> None:  # from any thread, and from a pass that outlives the loop
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._engine.watch = wake
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self.side_load.check()
                async with self.lock:
                    while await self._step():
                        pass
        finally:
            await self.side_load.cancel()

    async def _step(self) -> bool:
        """Carries out one decision; False: there was none to carry out now."""
        decision = swap_policy.decide(self._candidates(), self.ledger, self._clock.monotonic())
        # The end of a pass may be what a decision waits for.
        self._engine.watching = decision is not None
        if decision is None:
            return False
        if isinstance(decision, swap_policy.Later):
            self._alarm.set(decision.at)
            return False
        if isinstance(decision, swap_policy.Refuse):
            replica = self._replicas[decision.key]
            if replica.max_batch > 1:
                replica.max_batch //= 2
            else:
                self.fail(replica, decision.error)
            return True
        for replica in map(self._replicas.__getitem__, decision.out):
            self.evictions.add(replica.used_s, self._clock.monotonic())
            await self._demote(replica)
        if isinstance(decision, swap_policy.Shrink):
            return True
        replica = self._replicas[decision.key]
        if self.side_load.suits(replica):
            self._reserve(replica)
            load = self._or_fail(replica, self._promote_beside(replica))
            self.side_load.start(replica, load, self.wake)
        else:
            await self._or_fail(replica, self._promote(replica))
        return True

    def _candidates(self) -> list[swap_policy.SwapCandidate]:
        demand, now = self._engine.demand(), self._clock.monotonic()
        return [
            candidate_of(replica, self.ledger, demand.get(replica.key), now)
            for replica in self._replicas.values()
            if may_be_swapped(replica) and not self.side_load.delays(replica, self.ledger)
        ]

    # --- onto the device ----------------------------------------------------------------------

    async def _or_fail(self, replica: Replica, promotion: Coroutine[None, None, None]) -> None:
        try:
            await promotion
        except OutOfMemory as error:
            await self._engine.job(self._backend.reclaim)
            if replica.short:
                self.fail(replica, error)
                return
            # The ledger said that it fits. Retried once, within what the device really has.
            memory = self._backend.memory()
            real = memory.used_bytes + memory.available_bytes
            self.ledger = self.ledger.with_budget(min(self.ledger.budget_bytes, real))
            log.warning("out of memory while loading", model=replica.key, why=error.message)
            replica.short = True
            replica.max_batch = max(1, replica.max_batch // 2)
        except Exception as error:
            self.fail(replica, error)

    async def _promote(self, replica: Replica) -> None:
        """Reserves, reads, copies, warms up, commits what was measured; on failure undoes all."""
        self._reserve(replica)
        async with self._undone_on_failure(replica):
            read_s = await self.reader.load_weights(replica)
            load = partial(self._backend.load, replica.manifest_pack, replica.order.precision)
            model, copy_s = await self._engine.job(partial(self._open, replica, load))
            replica.swap_s = read_s + copy_s
            await self.warmup.warm_up(replica, model)
            await self.warmup.prove(replica, model)
            self._settle(replica, model)

    async def _promote_beside(self, replica: Replica) -> None:
        """The same for a load that runs beside passes. Takes the lock for what must not: other
        swaps go on meanwhile.
        """
        async with self._undone_on_failure(replica):
            async with self.lock:
                read_s = await self.reader.load_weights(replica)
            ask = not self.warmup.is_proven(replica)
            end, made_s = await self.side_load.make(replica, ask)
            self.warmup.note_proof(replica)
            async with self.lock:
                model, _ = await self._engine.job(partial(self._open, replica, end))
                replica.swap_s = read_s + made_s
                self._settle(replica, model)

    def _reserve(self, replica: Replica) -> None:
        claim = replica.expected()
        self.ledger = self.ledger.reserve(replica.key, claim)
        replica.claim = claim
        self._engine.limit(replica.key, replica.max_batch)

    @asynccontextmanager
    async def _undone_on_failure(self, replica: Replica) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            try:
                await asyncio.shield(self._engine.job(partial(self._close, replica)))
            finally:
                self.ledger = self.ledger.release(replica.key)
                replica.claim = NOTHING
            raise

    def _settle(self, replica: Replica, model: LoadedModel) -> None:
        """Commits what is on the device now."""
        self._commit(replica, model)
        replica.hot_since, replica.hot_since_unix_s = self._clock.monotonic(), self._clock.unix()
        replica.swaps_total += 1
        replica.wanted = replica.short = False
        self._engine.note_swap(replica.key, replica.swap_s)
        if replica.state is ReplicaState.WARM:
            self.apply(replica, ReplicaEvent.PROMOTED)
        replica.settled.set()
        self.reader.evict(0)
        log.info(
            "hot",
            model=replica.key,
            swap_ms=round(replica.swap_s * 1000, 2),
            max_batch=replica.max_batch,
            ledger_used_bytes=self.ledger.used_bytes,
        )

    def _open(self, replica: Replica, load: Callable[[], LoadedModel]) -> tuple[LoadedModel, float]:
        """On the device thread: puts the weights there; returns the seconds that took, too."""
        began = self._clock.monotonic()
        model = load()
        self._backend.synchronize()
        self.side_load.came(model)
        if not self._has_host_tier and not model.uses_host_memory:
            replica.drop_weights()  # host memory is the device's: the copy would count twice
        self._engine.models[replica.key] = model
        return model, self._clock.monotonic() - began

    def _commit(self, replica: Replica, model: LoadedModel) -> None:
        """Replaces the reservation by what was measured; halves the batch until that fits."""
        while True:
            claim = replace(
                replica.claim,
                weights_bytes=model.weights_bytes,
                workspace_bytes=model.workspace_bytes(replica.shape, replica.max_batch),
                private_bytes=model.private_bytes,
                transient_bytes=0,
            )
            try:
                self.ledger = self.ledger.commit(replica.key, claim)
                break
            except LedgerFull:
                if replica.max_batch == 1:
                    raise
                replica.max_batch //= 2
        replica.claim = claim
        self._engine.limit(replica.key, replica.max_batch)
        replica.note_measured()

    async def rebatch(self, replica: Replica, own: int) -> None:
        """Claims the workspace of the batch that is ordered from now on (`own`: the worker's
        largest), or of a smaller batch where memory is short. Takes the lock.
        """
        async with self.lock:
            # Not before: a larger pass would run before its memory is promised.
            replica.limit_batch(own)
            model, before = self._engine.models.get(replica.key), self.ledger
            if model is None or not before.holds(replica.key):
                return
            try:
                self.ledger = before.release(replica.key).reserve(replica.key, replica.claim)
                self._commit(replica, model)
            except LedgerFull:  # over its budget already: what is held stays as it is
                self.ledger, replica.max_batch = before, 1
                self._engine.limit(replica.key, 1)

    @asynccontextmanager
    async def reserve_workspace(
        self, replica: Replica, shape: tuple[int, int], batch: int
    ) -> AsyncIterator[tuple[LoadedModel, int] | None]:
        """Promises working memory for one pass of any batch size; yields the model and the bytes,
        or None: the replica is not on the device now. Holds the lock, so no swap begins inside.

        Raises LedgerFull.
        """
        async with self.lock:
            model = self._engine.models.get(replica.key)
            if model is None:
                yield None
                return
            needed = model.workspace_bytes(shape, batch)
            wider = max(needed, replica.claim.workspace_bytes)
            self.ledger = self.ledger.widen(replica.key, wider)
            try:
                yield model, needed
            finally:
                self.ledger = self.ledger.widen(replica.key, replica.claim.workspace_bytes)

    # --- off the device -----------------------------------------------------------------------

    async def reclaim(self) -> None:
        """Gives memory that the backend only caches back to the device. Takes no lock."""
        await self._engine.job(self._backend.reclaim, Turn.IDLE)

    async def _demote(self, replica: Replica) -> None:
        # Before the await: a ticket that comes now finds the replica WARM, and asks for it again.
        if replica.state is ReplicaState.HOT:
            self.apply(replica, ReplicaEvent.DEMOTED)
            replica.settled.clear()
        await self.unload(replica)
        self.reader.evict(0)
        log.info("warm", model=replica.key, ledger_used_bytes=self.ledger.used_bytes)

    async def reload(self, replica: Replica, why: str) -> None:
        """Takes a replica that does not answer as it did off the device, and puts it there again,
        if it is still there. Takes the lock.
        """
        async with self.lock:
            if replica.state is not ReplicaState.HOT:
                return
            log.error("self-test failed, loading again", model=replica.key, why=why)
            replica.self_test = why
            await self._demote(replica)
            replica.drop_weights()
            replica.wanted = True
            self.wake()

    async def unload(self, replica: Replica) -> None:
        """Removes a replica from the device, if it is there, and releases its bytes. The caller
        holds the lock.
        """
        expected = replica.claim if self.ledger.holds(replica.key) else NOTHING
        freed = await self._engine.job(partial(self._close, replica))
        self.ledger = self.ledger.release(replica.key)
        replica.claim = NOTHING
        replica.max_batch = replica.batch_limit
        missing = expected.weights_bytes + expected.private_bytes - freed
        self.not_returned_bytes += missing
        log.debug("left the device", model=replica.key, freed_bytes=freed, missing_bytes=missing)

    def _close(self, replica: Replica) -> int:
        """On the device thread: drops the model; returns the bytes that came back, measured."""
        before = self._backend.memory().used_bytes
        model = self._engine.models.pop(replica.key, None)
        if model is not None:
            self.side_load.goes(model)
            model.close()
        if not self._has_host_tier:
            replica.drop_weights()  # host memory is the device's
        return before - self._backend.memory().used_bytes

    # --- ends ---------------------------------------------------------------------------------

    def fail(self, replica: Replica, error: Exception) -> None:
        """Ends a load or a swap that failed: all who wait for the version get the error, and those
        whose images are still decoded, until it is loaded anew. Needs no lock.
        """
        if not isinstance(error, YolopoolError):
            log.error("load failed", model=replica.key, exc_info=error)
            error = exhaustion.typed(error) or LoadFailed(
                f"{type(error).__name__} while loading: see the worker's log"
            )
        log.warning("load failed", model=replica.key, reason=error.reason, why=error.message)
        replica.wanted = replica.short = False
        replica.drop_weights()
        replica.claim = NOTHING
        if replica.state is not ReplicaState.RELEASING:
            replica.error = error
            self.apply(replica, ReplicaEvent.FAIL)
        self._engine.refuse(replica.key, error)
        replica.settled.set()

    def apply(self, replica: Replica, event: ReplicaEvent) -> None:
        """Moves a replica to its next state."""
        replica.life = replica.life.apply(TABLE, event)
        self._changed()

    async def close(self, limit_s: float) -> None:
        """Ends the readers and frees all host memory, behind every pass that runs or waits: the
        caller of a pass may be cancelled while the pass still reads weights. Returns after
        `limit_s` at the latest. Needs no lock.
        """
        self._alarm.cancel()
        self.reader.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                drop = partial(self._drop, tuple(self._replicas.values()))
                await self._engine.job(drop, Turn.IDLE)

    def _drop(self, replicas: Sequence[Replica]) -> None:
        """On the device thread: a later job finds no model."""
        self._engine.models.clear()
        for replica in replicas:
            replica.drop_weights()

"""One worker of the simulated fleet: its life, its heartbeats, and the calls that reach it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import numpy as np

from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.device import SIDE, Store
from benchmarks.simulation.shells import HEARTBEAT_S, Hands, Herald, Shape, order_of
from control_plane.types.footprint import Footprint
from control_plane.types.lease import FencingToken
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import LoadReport, WorkerInfo, WorkerState
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from worker.engine.request import Request
from worker.postprocess.outputs import NmsOptions
from worker.replicas.replica import Assignment
from yolopool.errors import DeadlineExceeded, StaleToken, WorkerLost

# From one process of the fleet to another.
NET_S = 0.0005
IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)
OPTIONS = NmsOptions((0.25,), 0.7, 300, agnostic=False)
Answer = TypeVar("Answer")


class Worker:
    """A process: another of the same id is another incarnation."""

    def __init__(
        self,
        id_: str,
        incarnation: str,
        loop: VirtualLoop,
        shape: Shape,
        store: Store,
        view: View,
        moved: Callable[[str, bool], None],
        took: Callable[[str, float], None],
    ) -> None:
        self.id = id_
        self.incarnation = incarnation
        self.is_dead = False
        self.is_silent = False
        self.calls: set[asyncio.Task[Any]] = set()
        self.highest: FencingToken | None = None
        self.hands = Hands(loop, shape, store, self._poke, moved, took)
        self.herald = Herald(self.hands, loop)
        self._loop = loop
        self._view = view
        self._poked = asyncio.Event()
        self._tasks = (
            loop.create_task(self.hands.swapper.run()),
            loop.create_task(self._heartbeats()),
        )

    def has_ready(self, key: str) -> bool:
        return not self.is_dead and key in self.hands.engine.models

    def info(self) -> WorkerInfo:
        return self.herald.worker(self.id, self.incarnation, WorkerState.READY)

    async def die(self) -> None:
        """As by a signal that can't be caught: no word of farewell, calls end."""
        self.is_dead = self.hands.engine.is_dead = True
        for task in (*self._tasks, *self.calls):
            task.cancel()
        for one in self.hands.held.values():
            if one.work is not None:
                one.work.cancel()
        await asyncio.sleep(0)

    # --- what it is asked -------------------------------------------------------------------

    async def assign(self, order: Assignment) -> None:
        await self.hands.replicas.assign(order)

    async def infer(self, key: str, deadline: float) -> LoadReport:
        """One image; answers what rides on the reply."""
        with self.hands.replicas.ticket(key) as replica:
            request = Request(key, OPTIONS, 1, deadline, replica.batching)
            answer = await self.hands.engine.submit(request, IMAGE)
            device_s = answer.inference_s / answer.batch_size
            now = self._loop.time()
            replica.usage = replica.usage.answered(now, answer.queue_s, device_s)
        return self.herald.load()

    def obey(self, token: FencingToken) -> None:
        if self.highest is not None and token < self.highest:
            raise StaleToken(f"token {token} is below {self.highest}, which was obeyed here")
        self.highest = token

    # --- what it says -----------------------------------------------------------------------

    def _poke(self) -> None:
        self._poked.set()

    async def _heartbeats(self) -> None:
        self._view.join(self.info(), self.highest)
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._poked.wait()
            except TimeoutError:
                pass
            self._poked.clear()
            await asyncio.sleep(NET_S)
            if self.is_silent:
                continue
            if self.incarnation == _incarnation(self._view, self.id):
                self._view.apply_heartbeat(self.info(), self.highest)
            else:
                self._view.join(self.info(), self.highest)


def _incarnation(view: View, id_: str) -> str:
    known = view.workers.get(id_)
    return known.incarnation if known is not None else ""


class Link(WorkerClient):
    """Calls to the workers of this fleet, by incarnation."""

    def __init__(self, workers: dict[str, Worker]) -> None:
        super().__init__()
        self._workers = workers

    async def assign(  # type: ignore[override]  # no message comes back: nobody looks at it
        self,
        worker: WorkerInfo,
        version: ModelVersion,
        pack_uri: str,
        known: Footprint | None,
        pinned: bool,
        prefetch: bool,
        token: FencingToken,
        timeout_s: float,
    ) -> None:
        assert version.pack is not None
        one = self._find(worker)
        one.obey(token)
        order = order_of(version.key, version.pack.digest, pinned, known, prefetch)
        await self._call(one, one.assign(order), timeout_s)

    async def release(  # type: ignore[override]  # as above
        self, worker: WorkerInfo, key: VersionKey, token: FencingToken, timeout_s: float
    ) -> int:
        one = self._find(worker)
        one.obey(token)
        return await self._call(one, one.hands.replicas.release(str(key)), timeout_s)

    async def detect(
        self, worker: WorkerInfo, key: VersionKey, deadline: float, timeout_s: float
    ) -> LoadReport:
        one = self._find(worker)
        return await self._call(one, one.infer(str(key), deadline), timeout_s)

    async def drop(self, worker: WorkerInfo) -> None:
        one = self._workers.get(worker.incarnation)
        for call in list(one.calls) if one is not None else ():
            call.cancel()

    def _find(self, worker: WorkerInfo) -> Worker:
        one = self._workers.get(worker.incarnation)
        if one is None or one.is_dead:
            raise _lost(worker.id)
        return one

    async def _call(
        self, one: Worker, call: Coroutine[Any, Any, Answer], timeout_s: float
    ) -> Answer:
        task = asyncio.get_running_loop().create_task(_later(call))
        one.calls.add(task)
        try:
            async with asyncio.timeout(timeout_s):
                return await task
        except TimeoutError as error:
            raise DeadlineExceeded(f"worker {one.id} did not answer in time") from error
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():
                raise
            raise _lost(one.id) from None
        finally:
            task.cancel()
            one.calls.discard(task)


async def _later(call: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        await asyncio.sleep(NET_S)
    except asyncio.CancelledError:
        call.close()
        raise
    return await call


def _lost(id_: str) -> WorkerLost:
    return WorkerLost(f"worker {id_} was lost before it answered: try again")

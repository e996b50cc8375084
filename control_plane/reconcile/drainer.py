"""Drains cordoned workers and releases versions that were unloaded by force.

Runs in every control plane and acts in the leader, under its token. Each order is a task of its
own, since a worker replies only after its last request.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.reconcile import drain_progress
from control_plane.reconcile.drain_progress import DrainProgress
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import YolopoolError
from yolopool.server.clock import Clock

log = structlog.get_logger()

TICK_S = 0.5
# Before an order that was refused, or whose reply was lost, is sent again.
RETRY_S = 1.0
# For the last requests of a worker, and for the running passes of a version.
DRAIN_S, FORCE_S = 60.0, 30.0
# How long a blocked want may keep a worker from draining.
MOVE_S = 30.0


class Drainer:
    """`token` returns the leader's acting token, None where this control plane may not act."""

    def __init__(
        self,
        view: View,
        link: WorkerClient,
        recorder: EventRecorder,
        clock: Clock,
        token: Callable[[], FencingToken | None],
        move_s: float = MOVE_S,
    ) -> None:
        self._view = view
        self._link = link
        self._recorder = recorder
        self._clock = clock
        self._token = token
        self._move_s = move_s
        self._orders: dict[Hashable, asyncio.Task[None]] = {}
        # When each cordoned process was first seen here, by incarnation.
        self._since: dict[str, float] = {}
        self._recorded: set[str] = set()

    async def run(self) -> None:
        """Runs until cancelled; then cancels the orders under way."""
        try:
            while True:
                seen = self._view.waiters.changes
                try:
                    self._step()
                except Exception:
                    log.exception("a drain failed: this is a bug")
                await self._view.waiters.after(seen, TICK_S)
        finally:
            for order in self._orders.values():
                order.cancel()

    def progress(self, worker: WorkerInfo) -> DrainProgress:
        """How far the models of a cordoned worker have moved."""
        now, view = self._clock.monotonic(), self._view
        since = self._since.setdefault(worker.incarnation, now)
        patient = now - since < self._move_s
        return drain_progress.progress(view.desired, view.workers, view.waits, worker, now, patient)

    def _step(self) -> None:
        view, token = self._view, self._token()
        cordoned = [w for w in view.workers.values() if view.desired.is_cordoned(w)]
        here = {worker.incarnation for worker in cordoned}
        self._since = {
            incarnation: since for incarnation, since in self._since.items() if incarnation in here
        }
        view.forced = {
            key for key in view.forced if view.replicas(key) and view.desired.want(key) is None
        }
        if token is None:
            return
        self._record_cordons(cordoned)
        for worker in cordoned:
            if worker.state is WorkerState.READY and worker.incarnation not in self._orders:
                progress = self.progress(worker)
                if not progress.moving:
                    self._start(worker.incarnation, self._drain(worker, progress, token))
        for key in view.forced:
            for worker, _ in view.replicas(key):
                if (worker.incarnation, key) not in self._orders:
                    self._start((worker.incarnation, key), self._force(worker, key, token))

    def _record_cordons(self, cordoned: list[WorkerInfo]) -> None:
        self._recorded &= {worker.incarnation for worker in cordoned}
        for worker in cordoned:
            if worker.incarnation not in self._recorded:
                self._recorded.add(worker.incarnation)
                message = "it will drain once its models are loaded elsewhere"
                self._recorder.record(EventKind.WORKER_CORDONED, worker=worker.id, message=message)

    def _start(self, name: Hashable, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"order {name}")
        self._orders[name] = task
        task.add_done_callback(lambda _: self._orders.pop(name, None))

    async def _drain(
        self, worker: WorkerInfo, progress: DrainProgress, token: FencingToken
    ) -> None:
        log.info("draining", worker=worker.id, not_moved=[str(key) for key in progress.stuck])
        try:
            left = await self._link.drain(worker, token, DRAIN_S)
            log.info("drained", worker=worker.id, left=left)
        except YolopoolError as error:
            log.warning(
                "drain refused", worker=worker.id, reason=error.reason, message=error.message
            )
        # It should leave now; if it does not, the next step orders it again.
        await asyncio.sleep(RETRY_S)

    async def _force(self, worker: WorkerInfo, key: VersionKey, token: FencingToken) -> None:
        log.info("forced release", worker=worker.id, version=str(key))
        try:
            await self._link.release(worker, key, token, FORCE_S, force=True)
        except YolopoolError as error:
            log.warning(
                "forced release refused",
                worker=worker.id,
                version=str(key),
                reason=error.reason,
                message=error.message,
            )
        await asyncio.sleep(RETRY_S)

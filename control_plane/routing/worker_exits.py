"""What is done when a supervisor says that a worker process ended by itself: it is listed, gets no
request any more, and what it had in hand is looked at. The one that decides tells of it.
"""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.clock import Clock
from control_plane.events.recorder import EventRecorder
from control_plane.metrics import Metrics
from control_plane.routing.quarantine import Quarantine
from control_plane.types.event import EventKind
from control_plane.types.worker import WorkerExit
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient

log = structlog.get_logger()

EXPIRY_TICK_S = 0.25


class WorkerExitHandler:
    """`decides`: whether this control plane does."""

    def __init__(
        self,
        view: View,
        worker_client: WorkerClient,
        quarantine: Quarantine,
        recorder: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        decides: Callable[[], bool],
    ) -> None:
        self._view = view
        self._worker_client = worker_client
        self._quarantine = quarantine
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._decides = decides

    async def report(
        self, exit: WorkerExit, incarnation: str, requests: frozenset[str], io_process: str = ""
    ) -> None:
        """A process of `exit.worker` ended with `requests` in hand; with `io_process` that
        was one of its I/O processes, beside which it serves on.
        """
        if io_process:
            log.error("I/O process ended", worker=exit.worker, how=str(exit), in_hand=len(requests))
            self._quarantine.exited(incarnation, requests, io_process)
            if self._decides():
                message = f"an I/O process: {exit}"
                self._recorder.record(
                    EventKind.WORKER_CRASHED,
                    worker=exit.worker,
                    reason="IO_PROCESS",
                    message=message,
                )
            return
        log.error("worker process ended", worker=exit.worker, how=str(exit), in_hand=len(requests))
        self._metrics.worker_exits.inc()
        self._view.exits.note(exit, self._clock.monotonic())
        self._quarantine.exited(incarnation, requests)
        if self._decides():
            reason = "CRASH_LOOPING" if exit.is_loop else ""
            self._recorder.record(
                EventKind.WORKER_CRASHED, worker=exit.worker, reason=reason, message=str(exit)
            )
        worker = self._view.mark_lost(exit.worker, incarnation)
        if worker is not None:
            # Its calls go elsewhere now, not when its lease has run out.
            await self._worker_client.drop(worker)

    async def expire_leases(self) -> None:
        """Runs for ever: ends the open calls of workers whose lease ran out, so that these requests
        go to other workers.
        """
        while True:
            try:
                for worker in self._view.expire(self._clock.monotonic()):
                    log.warning("worker lost: its lease ran out", worker=worker.id)
                    await self._worker_client.drop(worker)
            except Exception:
                log.exception("a lost worker was not let go: this is a bug")
            await asyncio.sleep(EXPIRY_TICK_S)

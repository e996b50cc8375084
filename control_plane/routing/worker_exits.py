"""Handles workers that are gone: reported exits of their processes, and leases that ran out.

The open calls of such a worker end at once, so that its requests go to other workers. Only the
leader records an event.
"""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.metrics.exposition import Metrics
from control_plane.routing.quarantine import Quarantine
from control_plane.types.event import EventKind
from control_plane.types.worker import WorkerExit
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.server.clock import Clock

log = structlog.get_logger()

EXPIRY_TICK_S = 0.25


class WorkerExitHandler:
    """`is_leader`: whether this control plane leads now."""

    def __init__(
        self,
        view: View,
        worker_client: WorkerClient,
        quarantine: Quarantine,
        recorder: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        is_leader: Callable[[], bool],
    ) -> None:
        self._view = view
        self._worker_client = worker_client
        self._quarantine = quarantine
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._is_leader = is_leader

    async def report(
        self, exit: WorkerExit, incarnation: str, requests: frozenset[str], io_process: str = ""
    ) -> None:
        """A process of `exit.worker` ended with `requests` in flight. With `io_process` only that
        I/O process ended, and the worker serves on.
        """
        self._quarantine.exited(incarnation, requests, io_process)
        if io_process:
            log.error(
                "I/O process ended", worker=exit.worker, how=str(exit), in_flight=len(requests)
            )
            self._record(exit.worker, "IO_PROCESS", f"an I/O process: {exit}")
            return
        log.error(
            "worker process ended", worker=exit.worker, how=str(exit), in_flight=len(requests)
        )
        self._metrics.worker_exits.inc()
        self._view.exits.note(exit, self._clock.monotonic())
        self._record(exit.worker, "CRASH_LOOPING" if exit.is_loop else "", str(exit))
        worker = self._view.mark_lost(exit.worker, incarnation)
        if worker is not None:
            # Now, and not when its lease runs out.
            await self._worker_client.drop(worker)

    async def expire_leases(self) -> None:
        """Runs for ever: marks workers lost when their lease runs out."""
        while True:
            try:
                for worker in self._view.expire(self._clock.monotonic()):
                    log.warning("worker lost: its lease ran out", worker=worker.id)
                    await self._worker_client.drop(worker)
            except Exception:
                log.exception("a lost worker's calls were not ended: this is a bug")
            await asyncio.sleep(EXPIRY_TICK_S)

    def _record(self, worker_id: str, reason: str, message: str) -> None:
        if self._is_leader():
            self._recorder.record(
                EventKind.WORKER_CRASHED, worker=worker_id, reason=reason, message=message
            )

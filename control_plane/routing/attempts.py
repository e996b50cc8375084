"""One Infer call to one worker: counted while it is open, and cancelled when the worker is silent.

A worker that ends other calls meanwhile is slow, not gone: its call goes on, since a second worker
would only add load. A cancelled call gives up its place in the worker's queue.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control_plane.caller import Trace
from control_plane.convert.workers import load_in
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import (
    DeadlineExceeded,
    DeadlineUnmeetable,
    WorkerLost,
    WorkerSilent,
    YolopoolError,
)
from yolopool.server.clock import Clock
from yolopool.v1 import worker_pb2


@dataclass(slots=True)
class _OpenCalls:
    """Open calls to one worker process, and when the process last ended a call (monotonic)."""

    count: int = 0
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """`limit_s`: as `per_try_timeout_s` says; `may_move`: whether another worker could answer."""

    worker: WorkerInfo
    key: VersionKey
    deadline_s: float
    limit_s: float | None
    may_move: Callable[[], bool]
    trace: Trace | None = None


class AttemptRunner:
    def __init__(self, view: View, worker_client: WorkerClient, clock: Clock) -> None:
        self._view = view
        self._worker_client = worker_client
        self._clock = clock
        self._calls: dict[str, _OpenCalls] = {}

    async def infer(
        self, attempt: Attempt, body: worker_pb2.InferRequest
    ) -> worker_pb2.InferResponse:
        """The worker's reply, after its load report went into the view.

        Raises WorkerSilent when the worker ended no call within the limit, and what
        `WorkerClient.infer` raises.
        """
        worker, began = attempt.worker, self._clock.monotonic()
        with self._counted(attempt) as calls:
            try:
                async with asyncio.timeout(None) as timeout:
                    with _Watch(attempt, calls, timeout, self._clock, began):
                        reply = await self._worker_client.infer(
                            worker, body, attempt.deadline_s - began, attempt.trace
                        )
            except TimeoutError:
                self._view.breaker.trip(worker.incarnation, self._clock.monotonic())
                raise WorkerSilent(
                    f"worker {worker.id} answered nothing for "
                    f"{self._clock.monotonic() - began:.2f} s: check its host",
                    details={"worker": worker.id},
                ) from None
            except YolopoolError as error:
                self._note_error(worker, calls, error, began)
                raise
            self._ended(worker, calls)
        self._view.apply_load(worker.id, load_in(reply.load))
        return reply

    @contextmanager
    def _counted(self, attempt: Attempt) -> Iterator[_OpenCalls]:
        worker = attempt.worker
        calls = self._calls.setdefault(worker.incarnation, _OpenCalls())
        calls.count += 1
        self._view.sent(worker.id, attempt.key)
        self._view.breaker.sent(worker.incarnation)
        try:
            yield calls
        finally:
            self._view.answered(worker.id, attempt.key)
            self._view.breaker.ended(worker.incarnation)
            calls.count -= 1
            if not calls.count:
                del self._calls[worker.incarnation]

    def _note_error(
        self, worker: WorkerInfo, calls: _OpenCalls, error: YolopoolError, began: float
    ) -> None:
        """An error is a sign of life, unless the worker is lost or ended no call since `began`."""
        # DeadlineUnmeetable is the worker's own refusal, on arrival.
        timed_out = isinstance(error, DeadlineExceeded) and not isinstance(
            error, DeadlineUnmeetable
        )
        if isinstance(error, WorkerLost) or (timed_out and calls.ended_s < began):
            self._view.breaker.trip(worker.incarnation, self._clock.monotonic())
        elif not timed_out:
            self._ended(worker, calls)

    def _ended(self, worker: WorkerInfo, calls: _OpenCalls) -> None:
        calls.ended_s = self._clock.monotonic()
        self._view.breaker.reset(worker.incarnation)


class _Watch:
    """Ends `timeout` once the worker has ended no call for the limit of an attempt.

    No closure that names itself: such a cycle would keep the image until Python looks for cycles,
    which it does by their number and not by their bytes.
    """

    __slots__ = ("_attempt", "_began", "_calls", "_clock", "_loop", "_timeout", "_timer")

    def __init__(
        self,
        attempt: Attempt,
        calls: _OpenCalls,
        timeout: asyncio.Timeout,
        clock: Clock,
        began: float,
    ) -> None:
        self._attempt = attempt
        self._calls = calls
        self._timeout = timeout
        self._clock = clock
        self._began = began
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._attempt.limit_s is not None:
            self._timer = self._loop.call_later(self._attempt.limit_s, self._check)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        limit_s = self._attempt.limit_s
        assert limit_s is not None, "only a limit sets the timer"
        silent_s = self._clock.monotonic() - max(self._began, self._calls.ended_s)
        if silent_s >= limit_s and self._attempt.may_move():
            self._timeout.reschedule(self._loop.time())
        else:
            again_s = limit_s - silent_s if silent_s < limit_s else limit_s
            self._timer = self._loop.call_later(again_s, self._check)

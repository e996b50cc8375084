"""One call of Infer at one worker: counted while it is out, and cut when the worker stands still.

A worker that answers other calls meanwhile is slow, not gone, and is waited for: to ask another as
well would only add to what both have to do. The cut call is cancelled, so its ticket is dropped.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control_plane.clock import Clock
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
from yolopool.v1 import worker_pb2


@dataclass(slots=True)
class _Calls:
    """Calls that are out to one worker process, and when it last ended one of them."""

    out: int = 0
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """`limit_s`: see `routing.attempt_limit_s`; `may_move` says whether another could answer."""

    worker: WorkerInfo
    key: VersionKey
    deadline_s: float
    limit_s: float | None
    may_move: Callable[[], bool]


class AttemptRunner:
    def __init__(self, view: View, worker_client: WorkerClient, clock: Clock) -> None:
        self._view = view
        self._worker_client = worker_client
        self._clock = clock
        self._calls: dict[str, _Calls] = {}

    async def infer(
        self, attempt: Attempt, body: worker_pb2.InferRequest
    ) -> worker_pb2.InferResponse:
        """The worker's answer, its report taken in.

        Raises WorkerSilent once the limit has passed without a word, and as `WorkerLink.infer`.
        """
        worker, began = attempt.worker, self._clock.monotonic()
        with self._counted(attempt) as calls:
            try:
                async with asyncio.timeout(None) as cut:
                    watch = self._watch(attempt, calls, cut, began)
                    try:
                        reply = await self._worker_client.infer(
                            worker, body, attempt.deadline_s - began
                        )
                    finally:
                        watch()
            except TimeoutError:
                self._view.breaker.trip(worker.incarnation, self._clock.monotonic())
                raise WorkerSilent(
                    f"worker {worker.id} stood still for "
                    f"{self._clock.monotonic() - began:.2f} s: look at its host",
                    details={"worker": worker.id},
                ) from None
            except WorkerLost:
                # The next goes elsewhere, if it can, until this one is heard again.
                self._view.breaker.trip(worker.incarnation, self._clock.monotonic())
                raise
            except DeadlineUnmeetable:
                self._heard(worker, calls)  # refused on arrival: that is a word of it
                raise
            except DeadlineExceeded:
                if calls.ended_s < began:
                    # Not a word of it in all that time: the next goes elsewhere, if it can.
                    self._view.breaker.trip(worker.incarnation, self._clock.monotonic())
                raise
            except YolopoolError:
                self._heard(worker, calls)
                raise
            self._heard(worker, calls)
        self._view.apply_load(worker.id, load_in(reply.load))
        return reply

    @contextmanager
    def _counted(self, attempt: Attempt) -> Iterator[_Calls]:
        worker = attempt.worker
        calls = self._calls.setdefault(worker.incarnation, _Calls())
        calls.out += 1
        self._view.sent(worker.id, attempt.key)
        self._view.breaker.sent(worker.incarnation)
        try:
            yield calls
        finally:
            self._view.answered(worker.id, attempt.key)
            self._view.breaker.ended(worker.incarnation)
            calls.out -= 1
            if not calls.out:
                del self._calls[worker.incarnation]

    def _heard(self, worker: WorkerInfo, calls: _Calls) -> None:
        calls.ended_s = self._clock.monotonic()
        self._view.breaker.reset(worker.incarnation)

    def _watch(
        self, attempt: Attempt, calls: _Calls, cut: asyncio.Timeout, began: float
    ) -> Callable[[], None]:
        """Looks after each limit whether the worker does anything; answers what ends the watch."""
        limit_s = attempt.limit_s
        if limit_s is None:
            return _nothing
        loop = asyncio.get_running_loop()

        timer = loop.call_later(limit_s, lambda: look())

        def look() -> None:
            nonlocal timer
            still_s = self._clock.monotonic() - max(began, calls.ended_s)
            if still_s >= limit_s and attempt.may_move():
                cut.reschedule(loop.time())
            else:
                again_s = limit_s - still_s if still_s < limit_s else limit_s
                timer = loop.call_later(again_s, look)

        return lambda: timer.cancel()


def _nothing() -> None:
    """Nobody watches."""

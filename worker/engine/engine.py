"""The queue and the one device thread: all that is given to the device is given here.

A batch is taken when the device is free, of a version that is there; tickets of others wait until
it is. Jobs go before batches, and run alone: no pass is under way meanwhile. Idle jobs run when no
batch could, and after a few that could. Answers go back to the event loop; a ticket whose caller
is gone or whose time is over is dropped, and one that would be late may give way to others.
"""

import asyncio
import itertools
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from worker.backends.base import U8, LoadedModel
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BatchingConfig
from worker.batching.estimates import LatencyEstimates, Shape
from worker.batching.queue import Batch, Demand, Dequeued, Ticket, TicketQueue
from worker.concurrency.reply import Reply, deliver
from worker.concurrency.stall_detector import DeviceActivity
from worker.concurrency.thread_pool import ThreadPool
from worker.engine.runner import BatchRunner, Outcome, TicketWork
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import (
    DeadlineExceeded,
    DeadlineUnmeetable,
    Draining,
    NotAssigned,
    YolopoolError,
)

Answer = TypeVar("Answer")
# Batches that may go before an idle job: under full load it still comes to its end.
PATIENCE = 8
# Batches under way: one on the device, and one before it that is being finished or, where the
# device runs by itself, one behind it that keeps it busy. More would only wait there.
MOST_UNDER_WAY = 2


@dataclass(frozen=True, slots=True)
class Request:
    """How a caller wants an image run; `deadline` is of the engine's clock, a lower priority goes
    first. `place` is what `reserve` answered; 0: it has none yet.
    """

    version: str
    options: NmsOptions
    priority: int
    deadline: float
    batching: BatchingConfig
    place: int = 0


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The queue as it is now."""

    outstanding: int
    capacity: int
    wait_s: float
    sequence: int
    # Since the process began: passes that were answered, and the images that they were asked for.
    passes_total: int = 0
    images_total: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Any]
    reply: Reply[Any]


class Engine:
    """`models` are by version and changed by jobs alone, so only the device thread changes them;
    others may ask whether a version is there. `watch` is called when a ticket waits for one that
    is not, and after each pass while `watching`; on any thread. Satisfies `passes.Account`.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.models: dict[str, LoadedModel] = {}
        self.watch: Callable[[], None] = _nobody
        self.watching = False
        self._clock = clock
        self._changed = threading.Condition()
        # All below is guarded by it.
        self._jobs: deque[_Job] = deque()
        self._idle_jobs: deque[_Job] = deque()
        self._passed_over = 0
        self._estimates = LatencyEstimates()
        self._queue: TicketQueue[TicketWork] = TicketQueue(capacity, self._estimates)
        self._swap_s: dict[str, float] = {}
        self._passes: Counter[str] = Counter()
        self._passes_total = self._images_total = 0
        # Images a pass that the ledger promises memory for, whatever a ticket was queued with.
        self._limits: dict[str, int] = {}
        self._refused: dict[str, YolopoolError] = {}
        # Batches that fitted where a larger one did not.
        self._fitting: dict[tuple[str, Shape], int] = {}
        self._running = 0
        self._free_at = 0.0
        # What the device thread does, and the passes that left it and are not answered yet.
        self._work: DeviceActivity | None = None
        self._unfinished: deque[DeviceActivity] = deque()
        self._stopping = False
        self._numbers = itertools.count(1)
        self._reports = itertools.count(1)
        self._beside = ThreadPool("finish", 1)
        self._runs = BatchRunner(self, self._beside, clock)
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)

    def start(self) -> None:
        self._beside.start()
        self._thread.start()

    async def stop(self, limit_s: float) -> None:
        """Refuses what still waits with Draining, and waits so long for both threads to end: a
        pass that is under way is answered.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        until = time.monotonic() + limit_s
        await asyncio.to_thread(self._thread.join, limit_s)
        await asyncio.to_thread(self._beside.join, max(0.0, until - time.monotonic()))

    async def job(self, run: Callable[[], Answer], idle: bool = False) -> Answer:
        """Runs a call on the device thread, before the batches that wait; an `idle` one behind
        them. Not cancelled with its caller: what it changes is changed.
        """
        reply: Reply[Answer] = Reply()
        with self._changed:
            if self._stopping:
                raise Draining("this worker is ending: ask another")
            (self._idle_jobs if idle else self._jobs).append(_Job(run, reply))
            self._changed.notify()
        return await reply.future

    def reserve(self, ask: AdmissionRequest) -> int:
        """Keeps a place in the queue while an image is decoded; to be given back by `free`.

        Raises QueueFull, DeadlineUnmeetable, Draining.
        """
        now = self._clock()
        with self._changed:
            if self._stopping:
                raise Draining("this worker is ending: ask another")
            place = next(self._numbers)
            self._queue.reserve(place, ask, now, self._done_s(place, ask, now))
        return place

    def free(self, place: int) -> None:
        """Gives a place back, and takes the request out of the queue that waits in it."""
        with self._changed:
            self._queue.free(place)

    async def submit(self, request: Request, image: U8) -> Outcome:
        """Queues one image and waits for its answer; a cancelled call frees its place.

        Raises QueueFull and DeadlineUnmeetable at once, DeadlineExceeded, NotAssigned,
        OutOfMemory, InferenceFailed, Draining.
        """
        reply: Reply[Outcome] = Reply()
        place = self.put(request, image, reply)
        try:
            return await reply.future
        finally:
            self.free(place)
            del reply  # an error keeps this frame, and it keeps the error

    def put(self, request: Request, image: U8, reply: Reply[Outcome]) -> int:
        """Queues one image, on any thread; its place, to be given back when nobody waits for the
        reply any more. Who gave it back already is not queued.

        Raises QueueFull, DeadlineUnmeetable, Draining, and what its version is refused with.
        """
        now = self._clock()
        height, width = image.shape[:2]
        with self._changed:
            if self._stopping:
                raise Draining("this worker is ending: ask another")
            if request.version in self._refused:
                # One for all: each raise would add its frames to those of the last.
                raise self._refused[request.version].with_traceback(None)
            if request.place and not self._queue.reserved(request.place):
                return request.place
            ticket = Ticket(
                request.place or next(self._numbers),
                request.version,
                (height, width),
                request.priority,
                request.deadline,
                now,
                request.batching,
                TicketWork(image, request.options, reply),
            )
            self._queue.add(ticket, now, self._done_s(ticket.number, ticket.ask, now))
            self._changed.notify()
        if request.version not in self.models:
            self.watch()
        return ticket.number

    def load(self) -> QueueLoad:
        """What rides on every reply."""
        with self._changed:
            return QueueLoad(
                len(self._queue) + self._running,
                self._queue.capacity,
                self._wait_s(self._clock()),
                next(self._reports),
                self._passes_total,
                self._images_total,
            )

    def image_s(self, version: str, shape: tuple[int, int]) -> float:
        """Estimated seconds of one image; 0 until one was measured."""
        with self._changed:
            return self._estimates.pass_s(version, shape, 1) or 0.0

    def measured(self, version: str) -> dict[Shape, tuple[int, ...]]:
        """Images of the passes that a version had, by shape."""
        with self._changed:
            return self._estimates.measured(version)

    def running(self) -> DeviceActivity | None:
        """What the device does now: what its thread is at, or else the pass that is to be finished
        next. Without the lock, so that nothing can hang the asker.
        """
        work = self._work
        if work is None:
            with suppress(IndexError):
                work = self._unfinished[0]
        return work

    def demand(self) -> dict[str, Demand]:
        """What waits, by version."""
        with self._changed:
            return self._queue.demand()

    def passes(self, version: str) -> int:
        """How many batches of a version were answered so far."""
        with self._changed:
            return self._passes[version]

    def note_pass(self, version: str, shape: Shape, batch: int, seconds: float) -> None:
        """A pass that was no batch of tickets tells what one takes, too."""
        with self._changed:
            self._estimates.record(version, shape, batch, seconds)

    def note_swap(self, version: str, seconds: float) -> None:
        """What bringing a version to the device takes: tickets that wait for it wait for that.
        A batch may be as large again as the variant says.
        """
        with self._changed:
            self._swap_s[version] = seconds
            self._fitting = {k: n for k, n in self._fitting.items() if k[0] != version}

    def limit(self, version: str, images: int) -> None:
        """No pass of a version has more images from now on, those that wait included."""
        with self._changed:
            self._limits[version] = images

    def refuse(self, version: str, error: YolopoolError, for_good: bool = False) -> None:
        """Answers all that waits for a version with an error; `for_good`: all that comes, too,
        until it is forgotten.
        """
        with self._changed:
            if for_good:
                self._refused[version] = error
            tickets = self._queue.take(version)
        deliver((ticket.payload.reply, None, error) for ticket in tickets)

    def forget(self, version: str) -> None:
        """Drops the estimates of a version that is gone."""
        with self._changed:
            self._estimates.forget(version)
            self._swap_s.pop(version, None)
            self._limits.pop(version, None)
            self._refused.pop(version, None)
            self._passes.pop(version, None)
            self._fitting = {k: n for k, n in self._fitting.items() if k[0] != version}

    def _done_s(self, number: int, ask: AdmissionRequest, now: float) -> float:
        """When an ask would be answered; not reckoned where it is not asked for."""
        return 0.0 if self._queue.alone(number) else self._wait_s(now, ask)

    def _wait_s(self, now: float, ask: AdmissionRequest | None = None) -> float:
        """When all that waits is done; of an `ask`: with what goes before it, as `Queue.wait_s`."""
        # A pass that is overdue is expected to take as long again: a device that hangs is not idle.
        busy = abs(self._free_at - now) if self._running else 0.0
        return busy + self._queue.wait_s(ask, self._away_s)

    def _away_s(self, version: str) -> float:
        return 0.0 if version in self.models else self._swap_s.get(version, 0.0)

    def _loop(self) -> None:
        while (work := self._next()) is not None:
            if isinstance(work, _Job):
                _run_job(work)
            else:
                self._answer_late(work)
                if work.batch is not None:
                    self._run(work.batch)
            # Else the last images and answers would live until the next ones come.
            del work
        self._beside.end()

    def _next(self) -> "_Job | Dequeued[TicketWork] | None":
        """Waits for work; None: to end, with what waited refused."""
        with self._changed:
            while True:
                self._work = until = None
                alone = not self._unfinished
                if self._jobs and alone:
                    return self._job(self._jobs)
                if self._stopping and not self._jobs:
                    self._refuse_all()
                    return None
                if self._idle_jobs and self._passed_over >= PATIENCE and alone:
                    return self._idle_job()
                if self._may_take_batch():
                    now = self._clock()
                    begins = max(now, self._free_at) if self._running else now
                    taken = self._queue.next_batch(
                        now, self.models.__contains__, self._most_images, begins
                    )
                    if taken.batch is not None or taken.late:
                        self._passed_over += bool(self._idle_jobs)
                        self._note_start(taken.batch, now, begins)
                        return taken
                    until = taken.again_at
                if self._idle_jobs and alone:
                    return self._idle_job()
                self._changed.wait(None if until is None else max(0.0, until - self._clock()))

    def _may_take_batch(self) -> bool:
        """Not before what goes first, which waits until it is alone."""
        first = bool(self._jobs) or (bool(self._idle_jobs) and self._passed_over >= PATIENCE)
        return not first and len(self._unfinished) < MOST_UNDER_WAY

    def _refuse_all(self) -> None:
        ending = Draining("this worker is ending: ask another")
        deliver((ticket.payload.reply, None, ending) for ticket in self._queue.drain())
        for job in self._idle_jobs:
            job.reply(None, ending)

    def _idle_job(self) -> _Job:
        self._passed_over = 0
        return self._job(self._idle_jobs)

    def _job(self, jobs: "deque[_Job]") -> _Job:
        self._work = DeviceActivity("a load or another job of the device", self._clock(), None)
        return jobs.popleft()

    def _most_images(self, version: str, shape: Shape) -> int:
        limit = self._limits.get(version, sys.maxsize)
        return min(limit, self._fitting.get((version, shape), limit))

    def _note_start(self, batch: Batch[TicketWork] | None, now: float, begins: float) -> None:
        """A batch was taken now; it begins on the device behind what is there."""
        if batch is not None:
            self._running += len(batch.tickets)
            expected = self._estimates.pass_s(batch.version, batch.shape, batch.images)
            self._free_at = begins + (expected or 0.0)
            self._work = DeviceActivity(f"a pass of {batch.version}", now, expected)

    def _left_s(self, done: DeviceActivity) -> float:
        """What the passes take at most that are under way beside one that is done."""
        others = {id(one): one for one in (*self._unfinished, self._work) if one is not done}
        return sum(one.expected_s or 0.0 for one in others.values() if one is not None)

    def _answer_late(self, taken: Dequeued[TicketWork]) -> None:
        now = self._clock()
        deliver((ticket.payload.reply, None, _too_late(ticket, now)) for ticket in taken.late)
        deliver((ticket.payload.reply, None, _gave_way(ticket, now)) for ticket in taken.shed)

    def _run(self, batch: Batch[TicketWork]) -> None:
        model = self.models.get(batch.version)
        if model is not None:
            self._runs.run(model, batch)
            return
        self.failed(len(batch.tickets))
        error = NotAssigned(f"{batch.version} left this worker: ask another")
        deliver((ticket.payload.reply, None, error) for ticket in batch.tickets)

    # --- what passes tell -----------------------------------------------------------------------

    def began(self, batch: Batch[TicketWork]) -> None:
        with self._changed:
            under_way = self._work or DeviceActivity(
                f"a pass of {batch.version}", self._clock(), None
            )
            self._unfinished.append(under_way)

    def ended(
        self, batch: Batch[TicketWork], tickets: int, images: int, pass_s: float | None
    ) -> None:
        with self._changed:
            done = self._unfinished.popleft()
            self._running -= tickets
            self._free_at = min(self._free_at, self._clock() + self._left_s(done))
            if pass_s is not None:
                self._estimates.record(batch.version, batch.shape, images, pass_s)
                self._passes[batch.version] += 1
                self._passes_total += 1
                self._images_total += tickets
            self._changed.notify()
        if self.watching:
            self.watch()

    def failed(self, tickets: int) -> None:
        with self._changed:
            self._running -= tickets
        if self.watching:
            self.watch()

    def too_large(self, batch: Batch[TicketWork], images: int) -> None:
        with self._changed:
            self._fitting[batch.version, batch.shape] = images // 2

    def wait_alone(self) -> None:
        with self._changed:
            while self._unfinished:
                self._changed.wait()


def _nobody() -> None:
    """Nobody watches."""


def _too_late(ticket: Ticket[TicketWork], now: float) -> DeadlineExceeded:
    waited_s = now - ticket.arrived
    return DeadlineExceeded(f"the deadline passed after {waited_s:.3f} s in the queue")


def _gave_way(ticket: Ticket[TicketWork], now: float) -> DeadlineUnmeetable:
    waited_s, left_s = now - ticket.arrived, ticket.deadline - now
    return DeadlineUnmeetable(
        f"after {waited_s:.3f} s in the queue a pass would end after the deadline in {left_s:.3f} "
        "s, and others wait who can be in time: allow more time, or add workers",
        details={"waited_s": f"{waited_s:.3f}", "deadline_in_s": f"{left_s:.3f}"},
    )


def _run_job(job: _Job) -> None:
    try:
        job.reply(job.run(), None)
    except Exception as error:
        job.reply(None, error)

"""The queue and the one device thread: all work for the device goes through the engine.

When the device is free, the next batch is taken from the versions that are on it; tickets of others
wait. Jobs run between batches (`jobs`), and alone: no pass is in flight meanwhile. Answers go back
to the event loop. A ticket whose caller is gone or whose deadline passed is dropped; one that would
be late may be shed.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from worker.arrays import U8
from worker.backends.base import LoadedModel
from worker.batching.admission import AdmissionRequest
from worker.batching.estimates import LatencyEstimates, Shape
from worker.batching.queue import Batch, Demand, Dequeued, Ticket, TicketQueue
from worker.concurrency.reply import Reply, deliver
from worker.concurrency.stall_detector import DeviceActivity
from worker.concurrency.thread_pool import ThreadPool
from worker.engine import refusals
from worker.engine.batch_limits import BatchLimits
from worker.engine.in_flight import InFlight
from worker.engine.jobs import Job, JobQueue, Turn
from worker.engine.one_by_one import OneByOne
from worker.engine.request import PassCounts, QueueLoad, Request
from worker.engine.runner import BatchRunner, Outcome, TicketWork
from yolopool.errors import YolopoolError

Answer = TypeVar("Answer")
# Passes in flight: one on the device and one that is being finished or, where the device works
# asynchronously, one queued behind it that keeps it busy. More would only wait there.
MAX_IN_FLIGHT = 2


class Engine:
    """`models` are by version. Only jobs change them, so only the device thread does; others may
    ask whether a version is there. `watch` is called when a ticket waits for a version that is not
    there and, while `watching`, after each pass; `lost` with why the device is of no use any more.
    Both on any thread. Satisfies `runner.PassObserver`.
    """

    def __init__(self, capacity: int, clock: Callable[[], float], first_pass: int = 1) -> None:
        self.models: dict[str, LoadedModel] = {}
        self.watch: Callable[[], None] = lambda: None
        self.watching = False
        self.lost: Callable[[str], None] = lambda why: None
        # May be read without the lock.
        self.passed = PassCounts()
        self._clock = clock
        self._changed = threading.Condition()
        # All below is guarded by it.
        self._jobs = JobQueue()
        self._in_flight = InFlight()
        self._estimates = LatencyEstimates()
        self._queue: TicketQueue[TicketWork] = TicketQueue(capacity, self._estimates)
        self._swap_s: dict[str, float] = {}
        # Of the batch that was taken last: nothing like it was run before.
        self._is_cold = False
        # They bound a pass whatever its tickets were queued with.
        self._limits = BatchLimits()
        self._one_by_one = OneByOne(self._limits)
        self._refused: dict[str, YolopoolError] = {}
        self._stopping = False
        self._numbers = itertools.count(1)
        self._reports = itertools.count(1)
        self._finish_thread = ThreadPool("finish", 1)
        self._runner = BatchRunner(self, self._finish_thread, clock, first_pass)
        self._device_thread = threading.Thread(target=self._loop, name="device", daemon=True)

    def start(self) -> None:
        self._finish_thread.start()
        self._device_thread.start()

    async def stop(self, limit_s: float) -> None:
        """Refuses what still waits with Draining, and waits up to `limit_s` for both threads to
        end: a pass that is under way is answered.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        until = self._clock() + limit_s
        await asyncio.to_thread(self._device_thread.join, limit_s)
        await asyncio.to_thread(self._finish_thread.join, max(0.0, until - self._clock()))

    async def job(self, call: Callable[[], Answer], turn: Turn = Turn.URGENT) -> Answer:
        """Runs a call on the device thread when it is its turn among the batches that wait. The
        call runs even if its caller is cancelled.
        """
        reply: Reply[Answer] = Reply()
        with self._changed:
            if self._stopping:
                raise refusals.draining()
            self._jobs.add(Job(call, reply), turn)
            self._changed.notify()
        try:
            return await reply.future
        finally:
            del reply  # its error would hold this frame, and this frame the reply

    def reserve(self, ask: AdmissionRequest) -> int:
        """Reserves a place in the queue while an image is decoded; release it with `free`.

        Raises QueueFull, DeadlineUnmeetable, Draining.
        """
        now = self._clock()
        with self._changed:
            if self._stopping:
                raise refusals.draining()
            place = next(self._numbers)
            self._queue.reserve(place, ask, now, self._done_s(place, ask, now))
        return place

    def free(self, place: int) -> None:
        """Releases a place, and removes the request that waits in it from the queue."""
        with self._changed:
            self._queue.free(place)
            self._limits.left(place)

    async def submit(self, request: Request, image: U8) -> Outcome:
        """Queues one image and waits for its answer; a cancelled call releases its place.

        Raises QueueFull and DeadlineUnmeetable at once, DeadlineExceeded, NotAssigned,
        OutOfMemory, InferenceFailed, Draining.
        """
        reply: Reply[Outcome] = Reply()
        place = self.put(request, image, reply)
        try:
            return await reply.future
        finally:
            self.free(place)
            del reply  # else the error keeps this frame, and this frame the error

    def put(self, request: Request, image: U8, reply: Reply[Outcome]) -> int:
        """Queues one image, on any thread; returns its place, to be released when nobody waits for
        the reply any more. A request whose place was released already is not queued.

        Raises QueueFull, DeadlineUnmeetable, Draining, and the error that its version is refused
        with.
        """
        now = self._clock()
        height, width = image.shape[:2]
        with self._changed:
            if self._stopping:
                raise refusals.draining()
            if request.version in self._refused:
                # All requests share the error: each raise would add its frames to the last.
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
                TicketWork(image, request.options, reply, self._waiting()),
                request.tenant,
                request.weight,
            )
            self._queue.add(ticket, now, self._done_s(ticket.number, ticket.ask, now))
            self._changed.notify()
        if request.version not in self.models:
            self.watch()
        return ticket.number

    def load(self) -> QueueLoad:
        """The load report that goes with every reply."""
        with self._changed:
            return QueueLoad(
                self._waiting(),
                self._queue.capacity,
                self._wait_s(self._clock()),
                next(self._reports),
                self.passed.passes,
                self.passed.images,
            )

    def image_s(self, version: str, shape: tuple[int, int]) -> float:
        """Estimated seconds of one image; 0 until one was measured."""
        with self._changed:
            return self._estimates.pass_s(version, shape, 1) or 0.0

    def measured(self, version: str) -> dict[Shape, tuple[int, ...]]:
        """Batch sizes of the passes that a version had, by shape."""
        with self._changed:
            return self._estimates.measured(version)

    def running(self) -> DeviceActivity | None:
        """What the device does now; for the watchdog. Needs no lock: nothing hangs the caller."""
        return self._in_flight.activity()

    def demand(self) -> dict[str, Demand]:
        """The tickets that wait, by version."""
        with self._changed:
            return self._queue.demand()

    def passes(self, version: str) -> int:
        """How many passes of a version were answered so far."""
        with self._changed:
            return self.passed.of(version)

    def note_pass(self, version: str, shape: Shape, batch: int, seconds: float) -> None:
        """Adds the time of a pass outside the queue to the estimates."""
        with self._changed:
            self._estimates.record(version, shape, batch, seconds)

    def note_swap(self, version: str, seconds: float) -> None:
        """Notes how long the swap of a version took: tickets that wait for the version wait for
        the swap. Batch sizes that did not fit may be tried again.
        """
        with self._changed:
            self._swap_s[version] = seconds
            self._limits.reset_fit(version)

    def limit(self, version: str, images: int) -> None:
        """Limits the images in a pass of a version from now on, for tickets that wait, too."""
        with self._changed:
            self._limits.promise(version, images)

    def refuse(self, version: str, error: YolopoolError) -> None:
        """Answers all tickets that wait for a version with an error, and all that come, until
        `accept` or `forget`: images of requests that have a place may still be decoded.
        """
        with self._changed:
            self._refused[version] = error
            tickets = self._queue.pop_version(version)
        refusals.refuse(tickets, error)

    def accept(self, version: str) -> None:
        """Queues tickets of a version again."""
        with self._changed:
            self._refused.pop(version, None)

    def run_one_by_one(self, version: str) -> None:
        """Passes of several images of a version fail: for a while each has one."""
        with self._changed:
            self._limits.failed_together(version, self._clock())

    def forget(self, version: str) -> None:
        """Drops all that is known about a version that left."""
        with self._changed:
            self._estimates.forget(version)
            self._swap_s.pop(version, None)
            self._refused.pop(version, None)
            self.passed.forget(version)
            self._one_by_one.forget(version)

    def _waiting(self) -> int:
        return len(self._queue) + self._in_flight.tickets

    def _done_s(self, number: int, ask: AdmissionRequest, now: float) -> float:
        """In how many seconds a request would be answered; not computed where nobody needs it."""
        return 0.0 if self._queue.alone(number) else self._wait_s(now, ask)

    def _wait_s(self, now: float, ask: AdmissionRequest | None = None) -> float:
        """Seconds until all that waits is done or, with `ask`, until that request is: see
        `TicketQueue.wait_s`.
        """
        return self._in_flight.busy_s(now) + self._queue.wait_s(ask, self._expected_swap_s)

    def _expected_swap_s(self, version: str) -> float:
        return 0.0 if version in self.models else self._swap_s.get(version, 0.0)

    # --- on the device thread -------------------------------------------------------------------

    def _loop(self) -> None:
        while (work := self._next()) is not None:
            if isinstance(work, Job) and (why := work.run()):
                self.lost(why)
            elif not isinstance(work, Job):
                self._answer_late(work)
                if work.batch is not None:
                    self._run(work.batch)
            # Else the last images and answers would live until the next ones come.
            del work
        self._finish_thread.end()

    def _next(self) -> Job | Dequeued[TicketWork] | None:
        """Waits for work; None: the engine stops, and what waited was refused."""
        with self._changed:
            self._jobs.note_end(self._clock())
            while True:
                self._in_flight.note_idle()
                alone = not self._in_flight.unfinished
                if alone and (job := self._jobs.pop_urgent()) is not None:
                    return self._start_job(job)
                if self._stopping and not self._jobs.has_urgent:
                    self._refuse_all()
                    return None
                if alone and (job := self._jobs.pop_overdue(self._clock())) is not None:
                    return self._start_job(job)
                until: float | None = None
                if self._may_take_batch():
                    taken = self._take_batch()
                    if taken.batch is not None or taken.late:
                        return taken
                    until = taken.again_at
                if alone and (job := self._jobs.pop_idle(self._clock())) is not None:
                    return self._start_job(job)
                self._changed.wait(None if until is None else max(0.0, until - self._clock()))

    def _may_take_batch(self) -> bool:
        """Not before a job that goes first, and waits until no pass is in flight."""
        job_goes_first = self._jobs.has_urgent or self._jobs.is_patience_over(self._clock())
        return not job_goes_first and self._in_flight.unfinished < MAX_IN_FLIGHT

    def _take_batch(self) -> Dequeued[TicketWork]:
        now = self._clock()
        begins = self._in_flight.free_at(now)
        limit = partial(self._limits.max_images, now=now)
        taken = self._queue.next_batch(now, self.models.__contains__, limit, begins)
        if taken.batch is not None or taken.late:
            self._jobs.batch_went_first()
        if (batch := taken.batch) is not None:
            expected_s = self._estimates.pass_s(batch.version, batch.shape, batch.images)
            self._is_cold = expected_s is None
            self._in_flight.note_batch(batch.version, len(batch.tickets), now, begins, expected_s)
        return taken

    def _start_job(self, job: Job) -> Job:
        self._in_flight.note_job(self._clock())
        return job

    def _refuse_all(self) -> None:
        error = refusals.draining()
        refusals.refuse(self._queue.drain(), error)
        for job in self._jobs.drain():
            job.reply(None, error)

    def _answer_late(self, taken: Dequeued[TicketWork]) -> None:
        now = self._clock()
        deliver((t.payload.reply, None, refusals.too_late(t, now)) for t in taken.late)
        deliver((t.payload.reply, None, refusals.shed(t, now)) for t in taken.shed)

    def _run(self, batch: Batch[TicketWork]) -> None:
        model = self.models.get(batch.version)
        if model is not None:
            self._runner.run(model, batch, self._is_cold)
            return
        self.failed(len(batch.tickets))
        refusals.refuse(batch.tickets, refusals.left(batch.version))

    # --- reports of the runner ------------------------------------------------------------------

    def began(self, batch: Batch[TicketWork]) -> None:
        with self._changed:
            self._in_flight.pass_began(batch.version, self._clock())

    def ended(
        self, batch: Batch[TicketWork], tickets: int, images: int, pass_s: float | None
    ) -> None:
        with self._changed:
            self._in_flight.pass_ended(tickets, self._clock())
            if pass_s is not None:
                expected_s = self._estimates.pass_s(batch.version, batch.shape, images)
                self._estimates.record(batch.version, batch.shape, images, pass_s)
                self.passed.add(batch.version, tickets, pass_s, expected_s)
                self._one_by_one.ended(batch, self._clock())
            self._changed.notify()
        if self.watching:
            self.watch()

    def failed(self, tickets: int) -> None:
        with self._changed:
            self._in_flight.failed(tickets)
        if self.watching:
            self.watch()

    def error(
        self, version: str, tickets: Sequence[Ticket[TicketWork]], images: int, error: YolopoolError
    ) -> None:
        with self._changed:
            why, again = self._one_by_one.failed(version, tickets, images, error, self._clock())
            again = again and not self._stopping and version not in self._refused
            if again:
                for ticket in tickets:
                    if not ticket.payload.reply.future.done():  # else its caller has left
                        self._queue.put_back(ticket)
                self._changed.notify()
        if again:
            self.watch()
        else:
            refusals.refuse(tickets, error)
        if why:
            self.lost(why)

    def too_large(self, batch: Batch[TicketWork], images: int) -> None:
        with self._changed:
            self._limits.too_large(batch.version, batch.shape, images)

    def wait_alone(self) -> None:
        with self._changed:
            while self._in_flight.unfinished:
                self._changed.wait()

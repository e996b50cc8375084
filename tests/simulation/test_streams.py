"""Streams before a busy device, on a virtual clock: the decisions of control plane and worker
together. Only the processes are missing.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from benchmarks.harness.statistics import quantile
from control_plane.streams.frame_window import FrameWindow, OpenFrame, StreamRules
from control_plane.streams.pass_times import PassTimes
from control_plane.streams.turns import Turns
from worker.batching.config import BULK, NORMAL, BatchingConfig
from worker.batching.estimates import LatencyEstimates
from worker.batching.queue import Batch, Ticket, TicketQueue

CAMERAS, FRAME_S = 8, 1 / 25
DECODE_S, DEADLINE_S = 0.008, 30.0
WARMUP_S, SECONDS = 2.0, 40.0


# With the wait of a ticket, and the images and seconds of its pass.
Answer = Callable[[float, int, float], None]


@dataclass
class Events:
    """What happens next, by a virtual clock."""

    now: float = 0.0
    _heap: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), call))

    def run(self, until: float) -> None:
        while self._heap[0][0] < until:
            self.now, _, call = heapq.heappop(self._heap)
            call()


@dataclass(frozen=True)
class Curve:
    """Seconds of a pass, and of the way to the device."""

    fixed_s: float
    image_s: float
    hop_s: float = 0.001

    def pass_s(self, images: int) -> float:
        return self.fixed_s + images * self.image_s


# A device of 40 images/s, however they are batched; and one that is much faster in large passes.
STEADY, BATCHING = Curve(0.0, 0.025), Curve(0.02, 0.001)


class Device:
    """Runs the worker's queue. A ticket's payload is called with its wait, and the images and
    seconds of its pass.
    """

    def __init__(self, events: Events, max_batch: int, curve: Curve) -> None:
        self.batching = BatchingConfig(max_batch=max_batch)
        self.curve = curve
        self.longest_s = 0.0
        self._events = events
        self._estimates = LatencyEstimates()
        self._queue: TicketQueue[Answer] = TicketQueue(64, self._estimates)
        self._numbers = itertools.count(1)
        self._busy = False

    def submit(self, priority: int, answer: Answer) -> None:
        def decoded() -> None:
            now = self._events.now
            ticket = Ticket(
                next(self._numbers), "m@1", (640, 640), priority, now + DEADLINE_S, now,
                self.batching, answer,
            )  # fmt: skip
            self._queue.add(ticket, now, self._queue.wait_s(ticket.ask))
            self._go_on()

        self._events.after(self.curve.hop_s + DECODE_S, decoded)

    def _go_on(self) -> None:
        if self._busy:
            return
        batch = self._queue.next_batch(self._events.now).batch
        if batch is not None:
            self._busy = True
            took_s = self.curve.pass_s(len(batch.tickets))
            self.longest_s = max(self.longest_s, took_s)
            self._events.after(took_s, lambda: self._done(batch, took_s))

    def _done(self, batch: Batch[Answer], took_s: float) -> None:
        self._busy = False
        images = len(batch.tickets)
        self._estimates.record(batch.version, batch.shape, images, took_s)
        for ticket in batch.tickets:
            waited_s = self._events.now - took_s - ticket.arrived
            answer = partial(ticket.payload, waited_s, images, took_s)
            self._events.after(self.curve.hop_s, answer)
        self._go_on()


class Stream:
    """One stream as the control plane has it, whose reader is fast. Of a camera only the newest
    frame counts; a file's frames are there as soon as they may be read.
    """

    def __init__(self, site: "Site", number: int, rules: StreamRules) -> None:
        self.window: FrameWindow[float, str] = FrameWindow(rules)
        self.ages_s: list[float] = []
        self._site = site
        site.events.after(number * FRAME_S / CAMERAS, self._film)

    def _film(self) -> None:
        now = self._site.events.now
        if self.window.rules.newest_only:
            self.window.read(now, 100_000, now, now + DEADLINE_S)
            self._site.events.after(FRAME_S, self._film)
        while self.window.may_read and not self.window.rules.newest_only:
            self.window.read(now, 100_000, now, now + DEADLINE_S)
        self._site.ask(self)

    def begin(self) -> None:
        entry = self.window.start()
        self._site.device.submit(BULK, partial(self._answered, entry))

    def _answered(
        self, entry: OpenFrame[float, str], waited_s: float, images: int, took_s: float
    ) -> None:
        self.window.answered(entry, "boxes")
        self._site.passes.record(images, took_s, waited_s, self._site.turns.is_scarce)
        self._site.turns.ended(self)
        while (answered := self.window.next_answer()) is not None:
            self.window.taken(answered)
            if self._site.events.now >= WARMUP_S:
                self.ages_s.append(self._site.events.now - answered.frame)
        if self.window.rules.newest_only:
            self._site.ask(self)
        else:
            self._film()


class Site:
    """A device, and the streams of a control plane that are before it."""

    def __init__(self, max_batch: int, curve: Curve, rules: list[StreamRules]) -> None:
        self.events = Events()
        self.device = Device(self.events, max_batch, curve)
        self.turns = Turns[Stream]()
        self.passes = PassTimes()
        self.streams = [Stream(self, number, each) for number, each in enumerate(rules)]

    def ask(self, stream: Stream) -> None:
        if stream.window.may_start(self.events.now):
            self.turns.ask(stream)
        limit = self.passes.limit([self.device.batching.max_batch])
        while (chosen := self.turns.next(limit)) is not None:
            chosen.begin()
            if chosen.window.may_start(self.events.now):
                self.turns.ask(chosen)

    def run(self, seconds: float) -> list[int]:
        """Answers of each stream after the warm-up."""
        self.events.run(WARMUP_S + seconds)
        return [len(stream.ages_s) for stream in self.streams]


def ask_beside(site: Site, latencies_s: list[float]) -> None:
    """A unary caller: a request every 0.53 s."""
    events = site.events

    def ask() -> None:
        began = events.now

        def answered(*_: float) -> None:
            if began >= WARMUP_S:
                latencies_s.append(events.now - began)

        site.device.submit(NORMAL, answered)
        events.after(0.53, ask)

    events.after(0.0, ask)


@pytest.mark.parametrize("max_batch", [1, 4, 16])
def test_cameras_get_fresh_answers_and_equally_many(max_batch: int) -> None:
    """Eight cameras of 25 frames/s, a device of 40 images/s, and a unary caller beside them."""
    site = Site(max_batch, STEADY, [StreamRules(newest_only=True)] * CAMERAS)
    latencies_s: list[float] = []
    ask_beside(site, latencies_s)
    counts = site.run(SECONDS)
    mean = sum(counts) / CAMERAS
    assert all(abs(count / mean - 1) <= 0.1 for count in counts), counts
    assert sum(counts) + len(latencies_s) >= 0.97 * SECONDS * 40  # the device was busy
    ages_s = [age for stream in site.streams for age in stream.ages_s]
    assert quantile(ages_s, 0.99) < 0.3
    alone_s = 2 * STEADY.hop_s + DECODE_S + STEADY.pass_s(1)
    assert max(latencies_s) <= alone_s + 1.2 * site.device.longest_s


@pytest.mark.parametrize("hop_s", [0.001, 0.05])
@pytest.mark.parametrize("curve", [STEADY, BATCHING])
def test_streams_of_files_keep_a_device_busy(curve: Curve, hop_s: float) -> None:
    """However far away it is: as many answers as with all in flight that they may have."""
    there = replace(curve, hop_s=hop_s)
    files = [StreamRules(window=10)] * 4
    counts, unbounded = Site(16, there, files).run(20.0), Site(16, there, files)
    unbounded.passes.limit = lambda batches: 40  # type: ignore[method-assign]
    assert sum(counts) >= 0.95 * sum(unbounded.run(20.0))


def test_more_cameras_than_a_queue_has_places_all_get_answers() -> None:
    site = Site(16, STEADY, [StreamRules(newest_only=True)] * 100)
    counts = site.run(SECONDS)
    assert max(counts) - min(counts) <= 2
    assert sum(counts) >= 0.97 * SECONDS * 40

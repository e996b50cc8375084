"""One DetectStream: reads frames, starts each in its turn as a Detect, and sends the answers.

`frame_window` decides; this file waits and calls. Each event (a frame was read, answered, its
answer taken, a timer) ends in `_go_on`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from control_plane.caller import CallContext, Principal, principal_of
from control_plane.metrics.exposition import Metrics
from control_plane.streams.frame_window import FrameWindow, OpenFrame, StreamRules
from control_plane.streams.turnstile import Group, Turnstile
from yolopool.errors import (
    Draining,
    InvalidOption,
    QueueFull,
    TenantConcurrency,
    TenantRate,
    YolopoolError,
)
from yolopool.server.clock import Clock
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.intake import no_room
from yolopool.server.open_calls import typed_error
from yolopool.v1 import detection_pb2

METHOD = "/yolopool.v1.DetectionService/DetectStream"
# The shortest time after which a frame asks a full queue again.
MIN_AGAIN_S = 0.01
# What a frame waits for.
PACED = (QueueFull, TenantRate, TenantConcurrency)
# How long room is kept for a frame that may be on its way.
SPARE_S = 0.25

Answer = detection_pb2.DetectStreamResponse
Frame = OpenFrame[detection_pb2.StreamFrame, Answer]
Detect = Callable[
    [detection_pb2.DetectRequest, CallContext], Awaitable[detection_pb2.DetectResponse]
]


class FrameCall:
    """The context of one frame's Detect: the stream's, with the time limit of the frame."""

    __slots__ = ("_clock", "_deadline", "_stream")

    def __init__(self, stream: CallContext, deadline: float, clock: Clock) -> None:
        self._stream = stream
        self._deadline = deadline
        self._clock = clock

    def time_remaining(self) -> float | None:
        left_s = max(0.0, self._deadline - self._clock.monotonic())
        of_stream = self._stream.time_remaining()
        return left_s if of_stream is None else min(left_s, of_stream)

    def invocation_metadata(self) -> Any:
        return self._stream.invocation_metadata()

    @property
    def door(self) -> str:
        return "stream"

    def peer(self) -> str:
        peer = getattr(self._stream, "peer", None)
        return peer() if peer is not None else ""

    @property
    def principal(self) -> Principal:
        """Whose stream it is."""
        return principal_of(self._stream)


class FrameStream:
    """`answers` it once. `frame` has what all frames have in common: model, options, priority and
    the request_id of the stream.
    """

    def __init__(
        self,
        rules: StreamRules,
        frame: detection_pb2.DetectRequest,
        timeout_s: float,
        detect: Detect,
        context: CallContext,
        turnstile: Turnstile,
        metrics: Metrics,
        clock: Clock,
        budget: ByteBudget,
    ) -> None:
        self._budget = budget
        # Of the budget: what frames hold, and what is kept for the next until `_sparing`.
        self._held_bytes = self._spare_bytes = 0
        self._sparing: asyncio.TimerHandle | None = None
        self._window = FrameWindow[detection_pb2.StreamFrame, Answer](rules)
        self._common = frame
        self._timeout_s = timeout_s
        self._detect = detect
        self._context = context
        self._turnstile = turnstile
        self._metrics = metrics
        self._clock = clock
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._asked: Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = 0  # as far as the metrics know
        # It starts no more frames: the server stops, or the call is over.
        self._ending = False

    async def answers(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Answer]:
        """Raises what ends the stream: Draining after `end`, InvalidOption for a message that is no
        frame.
        """
        reading = asyncio.create_task(self._read(requests), name="frames of a stream")
        reading.add_done_callback(self._read_all)
        try:
            while True:
                self._wake.clear()
                frame = self._window.next_answer()
                if frame is not None:
                    yield self._message(frame)
                    self._window.taken(frame)
                    self._go_on()
                elif self._window.owes_progress:
                    yield self._progress()
                elif reading.done() and (reading.exception() or not self._window.unread):
                    reading.result()
                    return
                elif self._ending and not self._running:
                    raise Draining(
                        "this control plane is stopping: open a stream to another, and send it the "
                        "frames without an answer"
                    )
                else:
                    await self._wake.wait()
        finally:
            self._close(reading)

    def end(self) -> None:
        """Starts no more frames: those on their way are answered, then the stream ends."""
        self._ending = True
        self._go_on()
        self._wake.set()

    def begin(self, group: Group) -> None:
        """Its turn: the frame that waits is started now."""
        self._asked = None
        self._start(self._window.start(), group)
        self._go_on()

    def _close(self, reading: asyncio.Task[None]) -> None:
        self._ending = True
        reading.cancel()
        for task in self._running:
            task.cancel()
        self._window.leave()
        self._go_on()

    def _read_all(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            reading.exception()  # retrieved here too: the call may be over before it is looked at
        self._wake.set()

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for message in requests:
                if message.WhichOneof("message") != "frame":
                    raise InvalidOption("only the first message of a stream opens it: send frames")
                size_bytes = message.ByteSize()
                self._read_one(message.frame, size_bytes)
                del message  # the next may be long in coming
                while not self._window.may_read:
                    self._room.clear()
                    await self._room.wait()
                await self._keep_room(size_bytes)
        finally:
            self._give_spare()

    def _read_one(self, frame: detection_pb2.StreamFrame, size_bytes: int) -> None:
        now = self._clock.monotonic()
        self._give_spare()
        if self._budget.take(size_bytes):
            self._held_bytes += size_bytes
            self._window.read(frame, size_bytes, now, now + self._timeout_s)
        else:
            error = Answer(error=_told(no_room(size_bytes)))
            self._window.refused(_without_image(frame), error, now)
        self._go_on()
        self._wake.set()

    async def _keep_room(self, size_bytes: int) -> None:
        """Waits for room for a frame as large as the one before, and keeps it for a moment: what a
        caller has sent already is read into it, and one who sends nothing now holds up nobody.
        """
        await self._budget.room(size_bytes)
        self._spare_bytes = size_bytes
        self._sparing = asyncio.get_running_loop().call_later(SPARE_S, self._give_spare)

    def _give_spare(self) -> None:
        if self._sparing is not None:
            self._sparing.cancel()
            self._sparing = None
        self._budget.give(self._spare_bytes)
        self._spare_bytes = 0

    # --- after every event ------------------------------------------------------------------

    def _go_on(self) -> None:
        """Starts frames that are late, asks for a turn if one may start, and sets the timer."""
        now = self._clock.monotonic()
        self._metrics.frames_dropped.inc(self._window.dropped - self._dropped)
        self._dropped = self._window.dropped
        self._budget.give(self._held_bytes - self._window.ahead_bytes)
        self._held_bytes = self._window.ahead_bytes
        if self._window.may_read:
            self._room.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._ending:
            for frame in self._window.start_late(now):
                self._start(frame, None)
        self._ask(now)
        at = None if self._ending else self._window.wakes_at(now)
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - now), self._go_on)

    def _ask(self, now: float) -> None:
        wants = not self._ending and self._window.may_start(now)
        common, tenant = self._common, principal_of(self._context).tenant
        group = None
        if wants:
            group = self._turnstile.group(common.model, common.priority, tenant, common.sticky_key)
        if self._asked is not None and self._asked is not group:
            self._turnstile.withdraw(self, self._asked)
            self._asked = None
        if wants and group is None:
            self._start(self._window.start(), None)
            self._ask(now)
        elif group is not None and self._asked is None:
            self._asked = group
            self._turnstile.ask(self, group)

    # --- one frame --------------------------------------------------------------------------

    def _start(self, frame: Frame, group: Group | None) -> None:
        task = asyncio.create_task(self._run(frame, group), name="a frame of a stream")
        self._running.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, group))

    def _ended(self, task: asyncio.Task[None], group: Group | None) -> None:
        self._running.discard(task)
        # First: a frame that a full queue refused withdraws what the frames behind it asked for.
        self._go_on()
        if group is not None:
            self._turnstile.ended(self, group)
        self._wake.set()

    async def _run(self, frame: Frame, group: Group | None) -> None:
        call = FrameCall(self._context, frame.deadline, self._clock)
        try:
            answer = Answer(response=await self._detect(self._request(frame.frame), call))
            if group is not None:
                self._turnstile.answered(group, answer.response)
        except PACED as error:
            again_at = self._clock.monotonic() + max(MIN_AGAIN_S, error.retry_after_s or 0.0)
            if again_at < frame.deadline:
                self._window.put_back(frame, again_at)
                return
            answer = Answer(error=_told(error))
        except Exception as error:
            answer = Answer(error=_told(typed_error(error, METHOD)))
        frame.frame = _without_image(frame.frame)
        self._window.answered(frame, answer)

    def _request(self, frame: detection_pb2.StreamFrame) -> detection_pb2.DetectRequest:
        request = detection_pb2.DetectRequest()
        request.CopyFrom(self._common)
        request.request_id = f"{self._common.request_id}/{frame.frame_id}"
        match frame.WhichOneof("image"):
            case "encoded":
                request.encoded = frame.encoded
            case "raw":
                request.raw.CopyFrom(frame.raw)
        return request

    def _message(self, frame: Frame) -> Answer:
        assert frame.answer is not None, "it is sent because it has one"
        answer = frame.answer
        answer.frame_id = frame.frame.frame_id
        answer.timestamp_s = frame.frame.timestamp_s
        answer.age_ms = (self._clock.monotonic() - frame.read_at) * 1000
        return self._counted(answer)

    def _progress(self) -> Answer:
        return self._counted(Answer())

    def _counted(self, answer: Answer) -> Answer:
        answer.received, answer.dropped = self._window.received, self._window.dropped
        if self._window.rules.newest_only:
            held = (one for one in self._window.unread if one.answer is None)
            answer.held.extend(one.frame.frame_id for one in held)
        self._window.told()
        return answer


def _without_image(frame: detection_pb2.StreamFrame) -> detection_pb2.StreamFrame:
    return detection_pb2.StreamFrame(frame_id=frame.frame_id, timestamp_s=frame.timestamp_s)


def _told(error: YolopoolError) -> detection_pb2.FrameError:
    return detection_pb2.FrameError(
        code=error.code,
        reason=error.reason,
        message=error.message,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        details=error.details,
    )

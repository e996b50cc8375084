"""All DetectStreams of a control plane: opens them, and ends them when it stops."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from control_plane.caller import CallContext
from control_plane.convert.validation import (
    check_options,
    check_request_id,
    check_sticky_key,
)
from control_plane.metrics.exposition import Metrics
from control_plane.streams.frame_stream import Answer, Detect, FrameStream
from control_plane.streams.frame_window import StreamRules
from control_plane.streams.turnstile import Turnstile
from control_plane.view.view import View
from yolopool.errors import DeadlineExceeded, Draining, InvalidOption, TooManyStreams
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.open_calls import OpenCalls
from yolopool.v1 import detection_pb2, types_pb2

DEFAULT_WINDOW, MAX_WINDOW = 8, 64
# What is left of a request_id for "/" and the number of a frame.
MAX_STREAM_ID = 96


class DetectStreams:
    """`calls` counts streams like calls with one answer: at a stop they end by themselves."""

    def __init__(
        self,
        view: View,
        metrics: Metrics,
        clock: Clock,
        calls: OpenCalls,
        default_deadline_s: float,
        budget: ByteBudget,
        max_streams: int,
        opening_s: float,
    ) -> None:
        self._opening_s = opening_s
        self._budget = budget
        self._max_streams = max_streams
        self._turnstile = Turnstile(view)
        self._metrics = metrics
        self._clock = clock
        self._calls = calls
        self._default_deadline_s = default_deadline_s
        self._open: set[FrameStream] = set()
        self._closing = False

    async def serve(
        self, requests: AsyncIterator[Any], context: CallContext, detect: Detect
    ) -> AsyncGenerator[Answer]:
        """The answers of one stream, whose frames `detect` runs. Raises what ends it."""
        messages = aiter(requests)
        # Not counted before: a caller who never opens it would hold up a stop.
        opening = await _opening(messages, self._opening_s)
        if self._closing:
            raise Draining("this control plane is stopping: open a stream to another")
        if len(self._open) >= self._max_streams:
            raise TooManyStreams(
                f"{self._max_streams} streams are open at this control plane: end one, ask another "
                "one, or raise --max-streams",
                retry_after_s=1.0,
            )
        with self._calls.one():
            stream = FrameStream(
                _rules(opening),
                _common(opening),
                opening.frame_timeout_ms / 1000 or self._default_deadline_s,
                detect,
                context,
                self._turnstile,
                self._metrics,
                self._clock,
                self._budget,
            )
            self._open.add(stream)
            self._metrics.streams.inc()
            try:
                async with aclosing(stream.answers(messages)) as answers:
                    async for answer in answers:
                        yield answer
            finally:
                self._metrics.streams.dec()
                self._open.discard(stream)

    def close(self) -> None:
        """Ends the streams, each after the frames that are on their way."""
        self._closing = True
        for stream in self._open:
            stream.end()


async def _opening(messages: AsyncIterator[Any], limit_s: float) -> detection_pb2.StreamOpening:
    try:
        async with asyncio.timeout(limit_s):
            first = await anext(messages, None)
    except TimeoutError:
        raise DeadlineExceeded(
            f"the stream was not opened in {limit_s:g} s: send an opening, then frames"
        ) from None
    if first is None or first.WhichOneof("message") != "opening":
        raise InvalidOption("the first message of a stream opens it: send an opening, then frames")
    opening: detection_pb2.StreamOpening = first.opening
    return opening


def _rules(opening: detection_pb2.StreamOpening) -> StreamRules:
    if opening.window > MAX_WINDOW:
        raise InvalidOption(f"window is {opening.window}: give 1 to {MAX_WINDOW}, 0 for 8")
    if opening.order not in detection_pb2.StreamOrder.values():
        raise InvalidOption(f"order {opening.order} is not known: leave it out for FRAMES")
    return StreamRules(
        newest_only=opening.newest_only,
        in_order=opening.order != detection_pb2.STREAM_ORDER_ANSWERS,
        window=opening.window or DEFAULT_WINDOW,
    )


def _common(opening: detection_pb2.StreamOpening) -> detection_pb2.DetectRequest:
    """What is wrong with every frame is told at once, and not of each."""
    parse_ref(opening.model)
    check_options(opening.options)
    check_request_id(opening.request_id)
    if len(opening.request_id) > MAX_STREAM_ID:
        raise InvalidOption(f"the request_id of a stream has at most {MAX_STREAM_ID} characters")
    if opening.priority not in types_pb2.Priority.values():
        raise InvalidOption(f"priority {opening.priority} is not known: leave it out for BULK")
    check_sticky_key(opening.sticky_key)
    own = uuid.uuid4().hex
    return detection_pb2.DetectRequest(
        model=opening.model,
        options=opening.options if opening.HasField("options") else None,
        priority=opening.priority or types_pb2.PRIORITY_BULK,
        request_id=opening.request_id or own,
        # Frames of one video that different versions see can't be followed from one to the next.
        sticky_key=opening.sticky_key or own,
    )

"""What goes into a stream of frames, and what comes out; the messages of both.

Nothing is sent here.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from yolopool.client import images, requests
from yolopool.client.detections import Detections, from_response
from yolopool.client.images import ImageLike
from yolopool.client.requests import DetectOptions
from yolopool.client.streams.outbox import Outgoing
from yolopool.error_table import rebuild
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.v1 import detection_pb2

MAX_WINDOW = 64


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image of a stream, with a name of your own and a time, both given back in its result.

    Without an `id` it is the frame's number, from 0.
    """

    image: ImageLike
    id: Any = None
    timestamp: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """Of one frame: `detections`, or the `error` that only this frame had.

    `dropped`: frames of the stream so far that newer ones replaced. `age_s`: seconds from when the
    frame was taken from the caller's iterator until now.
    """

    id: Any
    timestamp: float
    detections: Detections | None
    error: YolopoolError | OSError | None
    dropped: int
    age_s: float


@dataclass(frozen=True, slots=True)
class StreamMessages:
    """The messages of one stream. Makes frames and reads answers by the options of its opening."""

    opening: detection_pb2.StreamOpening
    given: DetectOptions

    def first(self) -> detection_pb2.DetectStreamRequest:
        return detection_pb2.DetectStreamRequest(opening=self.opening)

    def frame(self, outgoing: Outgoing[Frame]) -> detection_pb2.DetectStreamRequest:
        """A frame that can't be sent goes without an image, so that its error comes in its turn."""
        message = detection_pb2.StreamFrame(frame_id=outgoing.number)
        order, depth = self.given.get("channel_order"), self.given.get("bit_depth")
        try:
            outgoing.source = images.put(outgoing.frame.image, order, depth, message)
        except (YolopoolError, OSError) as error:
            outgoing.error = error
        return detection_pb2.DetectStreamRequest(frame=message)

    def result(
        self,
        outgoing: Outgoing[Frame],
        answer: detection_pb2.DetectStreamResponse,
        dropped: int,
        now: float,
    ) -> FrameResult:
        """What an answer says of its frame."""
        frame, detections, error = outgoing.frame, None, outgoing.error
        if answer.HasField("response"):
            with_masks = self.given.get("masks") != "none"
            detections = from_response(answer.response, outgoing.source, with_masks)
        elif error is None:
            error = _typed(answer.error)
        return FrameResult(
            outgoing.number if frame.id is None else frame.id,
            frame.timestamp,
            detections,
            error,
            dropped,
            now - outgoing.taken_at,
        )


def messages_of(
    model: str, newest_only: bool, in_order: bool, window: int, given: DetectOptions
) -> StreamMessages:
    """Raises InvalidOption, and TypeError for an option that is not known."""
    requests.refuse_unknown("detect_stream", given, DetectOptions)
    if not 1 <= window <= MAX_WINDOW:
        raise InvalidOption(f"window is {window}: give 1 to {MAX_WINDOW} frames")
    order = detection_pb2.STREAM_ORDER_FRAMES if in_order else detection_pb2.STREAM_ORDER_ANSWERS
    opening = detection_pb2.StreamOpening(
        model=model,
        priority=requests.priority(given.get("priority", "bulk")),
        request_id=given.get("request_id", ""),
        # A stream that is opened again goes on with the version that it had.
        sticky_key=given.get("sticky_key") or uuid.uuid4().hex,
        newest_only=newest_only,
        order=order,
        window=window,
    )
    if (timeout_s := given.get("timeout_s")) is not None:
        opening.frame_timeout_ms = max(1, round(timeout_s * 1000))
    requests.put_options(opening.options, given)
    return StreamMessages(opening, given)


def as_frame(given: ImageLike | Frame) -> Frame:
    """A bare image is a frame without a name."""
    return given if isinstance(given, Frame) else Frame(given)


def _typed(error: detection_pb2.FrameError) -> YolopoolError:
    retry_after_s = error.retry_after_s if error.HasField("retry_after_s") else None
    details = dict(error.details)
    return rebuild(error.code, error.reason, error.message, error.retryable, retry_after_s, details)

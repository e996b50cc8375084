"""`detect_video`: what is asked about each frame of a video, and how its answer is told."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from yolopool.client import calls
from yolopool.client.calls import Call
from yolopool.client.detections import Detections
from yolopool.client.media import sources
from yolopool.client.media.in_flight import (
    Questions,
    Send,
    Start,
    Told,
    check_window,
    in_order,
    in_order_async,
)
from yolopool.client.media.many import WINDOW, Progress
from yolopool.client.media.newest_frame import LiveFrame, NewestFrame
from yolopool.client.media.outcomes import FrameAnswer, Video
from yolopool.client.media.sources import Source, SourceKind
from yolopool.client.media.tracking import Tracker
from yolopool.client.media.video_reader import VideoReader
from yolopool.client.requests import DetectOptions
from yolopool.errors import InvalidOption

LOST_S = 60.0


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is read and sent; see `Client.detect_video`."""

    track: bool = False
    window: int | None = None
    jpeg_quality: int | None = None
    lost_s: float = LOST_S

    def __post_init__(self) -> None:
        if self.window is not None:
            check_window(self.window)
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise InvalidOption(f"jpeg_quality is {self.jpeg_quality}: give 1 to 100")


class FrameCalls:
    """An open video, the questions about its frames, and the answers to them with their tracks.

    Raises VideoNotReadable, InvalidOption for what is no video, ExtraMissing.
    """

    def __init__(
        self, place: str | Path | int, model: str, how: VideoOptions, options: DetectOptions
    ) -> None:
        self._model, self._how, self._options = model, how, options
        source = source_of(place)
        self.video, self.questions = self._opened(source)
        # All frames of a file are wanted soon; of a live one, the newest at any time.
        self.window = how.window or (1 if self.video.is_live else WINDOW)
        self.ahead = not self.video.is_live
        try:
            self._tracker = Tracker(float(self.video.rate)) if how.track else None
        except BaseException:
            self.questions.close()
            raise

    def answer(self, item: LiveFrame, told: Told) -> FrameAnswer:
        """The answer about a frame; frames come in order."""
        frame, error = item.frame, None
        if isinstance(told, Detections):
            found: Detections | None = told
            if self._tracker is not None:
                found = self._tracker.update(told, frame.time_s)
        else:
            found, error = None, told
        picture = Image.fromarray(frame.pixels)
        return FrameAnswer(
            found, error, self.video, frame.index, frame.time_s, picture,
            item.dropped, item.reconnects,
        )  # fmt: skip

    def _opened(self, source: Source) -> tuple[Video, Questions[LiveFrame]]:
        if source.kind is SourceKind.LIVE:
            newest = NewestFrame(partial(VideoReader, source), self._how.lost_s)
            return newest.video, Questions(newest.frames(), self._ask, wake=newest.close)
        reader = VideoReader(source)
        return reader.video, Questions(_every(reader), self._ask, release=reader.close)

    def _ask(self, item: LiveFrame) -> Call[Detections]:
        options: DetectOptions = {**self._options}
        if name := options.get("request_id"):
            options["request_id"] = f"{name}-{item.frame.index}"
        quality = self._how.jpeg_quality
        if quality is not None:
            jpeg = io.BytesIO()
            Image.fromarray(item.frame.pixels).save(jpeg, "JPEG", quality=quality)
            return calls.detect(jpeg.getvalue(), self._model, **options)
        options["channel_order"] = "rgb"
        return calls.detect(item.frame.pixels, self._model, **options)


def answers(
    opened: Callable[[], FrameCalls], start: Start, progress: Progress | None
) -> Generator[FrameAnswer, None, None]:
    frames = opened()
    for item, told in in_order(frames.questions, start, frames.window, ahead=frames.ahead):
        yield _noted(frames.answer(item, told), progress)


async def answers_async(
    opened: Callable[[], FrameCalls], send: Send, progress: Progress | None
) -> AsyncGenerator[FrameAnswer, None]:
    frames = await asyncio.to_thread(opened)
    told_all = in_order_async(frames.questions, send, frames.window, ahead=frames.ahead)
    async with aclosing(told_all):
        async for item, told in told_all:
            yield _noted(frames.answer(item, told), progress)


def _noted(answer: FrameAnswer, progress: Progress | None) -> FrameAnswer:
    if progress is not None:
        progress(answer.index + 1, answer.video.frames)
    return answer


def source_of(place: str | Path | int) -> Source:
    """The video or live stream that is meant. A file of any suffix may be one."""
    found = sources.sources_of(str(place) if isinstance(place, int) else place)
    if len(found) != 1:
        raise InvalidOption(f"{place} has {len(found)} images and videos: give one video")
    (source,) = found
    if source.kind is SourceKind.IMAGE:
        return Source(SourceKind.VIDEO, source.place, source.name, source.stem)
    return source


def _every(reader: VideoReader) -> Generator[LiveFrame, None, None]:
    for frame in reader.frames():
        yield LiveFrame(frame, 0, 0)

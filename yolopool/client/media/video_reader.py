"""The frames of a video file, camera or stream by PyAV, upright and in RGB."""

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from yolopool.client.media.outcomes import Video
from yolopool.client.media.sources import Source, SourceKind
from yolopool.errors import ExtraMissing, VideoNotReadable

U8 = npt.NDArray[np.uint8]
_OPEN_S, _READ_S = 10.0, 5.0
# How the libraries of this system open a camera by its number.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: its number from 0, its time since the first one, RGB uint8 (height, width, 3)."""

    index: int
    time_s: float
    pixels: U8


def pyav() -> ModuleType:
    """The library. Raises ExtraMissing."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise ExtraMissing(
            "reading and writing videos needs PyAV: pip install 'yolopool[video]'"
        ) from error
    av.logging.set_level(None)  # what matters is raised
    return av


class VideoReader:
    """An open video; iterate over its `frames` once, then close it.

    Raises VideoNotReadable, and ExtraMissing without PyAV.
    """

    def __init__(self, source: Source) -> None:
        self._av, self._source = pyav(), source
        self._container: Any = None
        try:
            self._container = _opened(self._av, source)
            self.video = self._begun()
        except (OSError, ValueError) as error:  # FFmpeg's errors are one of both
            self.close()
            raise _not_readable(source, error) from error
        except VideoNotReadable:
            self.close()
            raise

    def _begun(self) -> Video:
        """What the first frame says of the video."""
        name, is_live = self._source.name, self._source.kind is SourceKind.LIVE
        stream = next(iter(self._container.streams.video), None)
        if stream is None:
            raise VideoNotReadable(f"{name} has no picture: give a video")
        # Frame threads are faster, and hold back a frame each.
        stream.thread_type = "SLICE" if is_live else "AUTO"
        self._frames = self._read(stream)
        self._first = next(self._frames, None)
        if self._first is None:
            raise VideoNotReadable(f"{name} has no frame that can be read: give a whole video")
        height, width = self._first.pixels.shape[:2]
        rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
        return Video(name, rate, (width, height), stream.frames, is_live)

    def frames(self) -> Generator[Frame, None, None]:
        """All frames. Damaged parts are skipped, as OpenCV skips them."""
        with closing(self._frames):
            if self._first is not None:
                yield self._first
            try:
                yield from self._frames
            except (OSError, ValueError) as error:
                raise _not_readable(self._source, error) from error

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _read(self, stream: Any) -> Generator[Frame, None, None]:
        index, first_s, rate = 0, None, float(stream.average_rate or 0) or 30.0
        for packet in self._container.demux(stream):
            try:
                decoded = packet.decode()
            except self._av.error.InvalidDataError:
                continue
            for frame in decoded:
                time_s = frame.time if frame.time is not None else index / rate
                first_s = time_s if first_s is None else first_s
                yield Frame(index, time_s - first_s, _upright(frame))
                index += 1


def _opened(av: ModuleType, source: Source) -> Any:
    place, kind = source.place, None
    if source.kind is SourceKind.LIVE and place.isdecimal():
        kind, form = _CAMERAS.get(sys.platform, ("", ""))
        if not kind:
            raise VideoNotReadable(
                f"cameras have no numbers on {sys.platform}: give the address of a stream"
            )
        place = form.format(int(place))
    elif place.startswith("/dev/"):
        kind = "v4l2"
    options = {"rtsp_transport": "tcp"} if place.lower().startswith("rtsp") else {}
    limits = (_OPEN_S, _READ_S) if source.kind is SourceKind.LIVE else None
    return av.open(place, format=kind, options=options, timeout=limits)


def _upright(frame: Any) -> U8:
    pixels: U8 = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _not_readable(source: Source, error: Exception) -> VideoNotReadable:
    said = getattr(error, "strerror", None) or str(error)
    todo = "check the address and that it is running"
    if source.kind is SourceKind.VIDEO:
        todo = "check the path and that it is a video"
    return VideoNotReadable(f"{source.name}: {said}: {todo}")

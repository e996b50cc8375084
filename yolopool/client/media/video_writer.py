"""Writes pictures as a video by PyAV: H.264 at the rate, the size and the times of its source."""

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yolopool.client.media.outcomes import Video
from yolopool.client.media.video_reader import pyav
from yolopool.errors import InvalidOption

# Fine enough for the times of every usual rate; what MPEG streams count in.
_TICKS = 90_000
_USUAL_RATE = Fraction(30)
# Where the sides are odd, colours can't be stored at half of them.
_EVEN, _ODD = "yuv420p", "yuv444p"


class VideoWriter:
    """A file that is being written; close it to make it whole.

    Raises InvalidOption for a suffix of no format that takes video, OSError, and ExtraMissing
    without PyAV.
    """

    def __init__(self, path: Path, video: Video) -> None:
        av = pyav()
        # A recording that is killed can be played up to its last second.
        whole = {"movflags": "frag_keyframe+empty_moov"} if video.is_live else {}
        kinds = (".mp4", ".mov", ".m4v")
        try:
            options = whole if path.suffix.lower() in kinds else {}
            self._container = av.open(str(path), "w", options=options)
        except ValueError as error:
            raise InvalidOption(
                f"{path}: no video format has this name: end it in .mp4, .mkv or .avi"
            ) from error
        self._frame_of = av.VideoFrame.from_ndarray
        self._rate = video.rate or _USUAL_RATE
        try:
            self._stream = self._added(video)
        except (ValueError, OSError) as error:
            self._container.close()
            path.unlink(missing_ok=True)
            raise InvalidOption(f"{path}: no video of {video.size} can be written ({error})") from (
                error
            )
        self._last = -1

    def _added(self, video: Video) -> Any:
        stream: Any = self._container.add_stream("h264", rate=self._rate)
        stream.width, stream.height = video.size
        stream.pix_fmt = _ODD if any(side % 2 for side in video.size) else _EVEN
        stream.codec_context.time_base = Fraction(1, _TICKS)
        return stream

    def add(self, picture: Image.Image, time_s: float) -> None:
        """Adds a picture of the video's size, shown from this time on."""
        frame = self._frame_of(np.asarray(picture.convert("RGB")), format="rgb24")
        self._last = max(self._last + 1, round(time_s * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what is held back, and the end of the file."""
        with contextlib.closing(self._container):
            self._container.mux(self._stream.encode(None))

"""A live source read on a thread that keeps only its newest frame, and opens it again when lost.

Whoever takes frames more slowly than they come gets the newest one; older ones are dropped and
counted, so that answers never fall behind what the camera sees. A frame that is dropped here is
neither encoded nor sent; one that a stream of the server drops is both.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from yolopool.client.media.outcomes import Video
from yolopool.client.media.video_reader import Frame
from yolopool.errors import VideoNotReadable, YolopoolError

_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Reader(Protocol):
    """An open live source."""

    @property
    def video(self) -> Video: ...
    def frames(self) -> Generator[Frame, None, None]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame with how many were dropped so far, and how often the source was opened again."""

    frame: Frame
    dropped: int
    reconnects: int


class NewestFrame:
    """Reads what `opened` opens. Opening it the first time raises its error at once; after that it
    is opened again whenever it ends, until no frame came for `lost_s` seconds.
    """

    def __init__(self, opened: Callable[[], Reader], lost_s: float) -> None:
        self._opened = opened
        self._lost_s = lost_s
        self._change = threading.Condition()
        self._newest: LiveFrame | None = None
        self._failure: YolopoolError | None = None
        self._closing = threading.Event()
        self._began = self._last = time.monotonic()
        self._dropped = self._reconnects = self._count = 0
        self._reader = opened()
        self.video = self._reader.video
        self._thread = threading.Thread(target=self._run, name="newest-frame", daemon=True)
        self._thread.start()

    def frames(self) -> Generator[LiveFrame, None, None]:
        """The newest frame that was not taken yet, each time there is one. Raises VideoNotReadable
        once the source is lost.
        """
        while True:
            with self._change:
                self._change.wait_for(lambda: self._newest or self._failure or self._is_closed)
                taken, self._newest = self._newest, None
                if taken is None:
                    if self._failure is not None:
                        raise self._failure
                    return
            yield taken

    def close(self) -> None:
        """Ends the thread, and `frames` wherever it waits."""
        self._closing.set()
        with self._change:
            self._change.notify_all()

    @property
    def _is_closed(self) -> bool:
        return self._closing.is_set()

    def _run(self) -> None:
        attempt, reader = 0, self._reader
        while not self._is_closed:
            before = self._count
            try:
                self._drain(reader)
                failure = VideoNotReadable(f"{self.video.name} ended: check that it is running")
            except YolopoolError as error:
                failure = VideoNotReadable(error.message)
            attempt = attempt + 1 if self._count == before else 0
            opened = self._open_again(attempt, failure)
            if opened is None:
                return
            reader = opened

    def _drain(self, reader: Reader) -> None:
        with closing(reader), closing(reader.frames()) as frames:
            for frame in frames:
                if self._is_closed:
                    return
                self._put(frame)

    def _put(self, frame: Frame) -> None:
        self._last = time.monotonic()
        with self._change:
            self._dropped += self._newest is not None
            numbered = replace(frame, index=self._count, time_s=self._last - self._began)
            self._newest = LiveFrame(numbered, self._dropped, self._reconnects)
            self._count += 1
            self._change.notify_all()

    def _open_again(self, attempt: int, failure: VideoNotReadable) -> Reader | None:
        """Waits longer each time; None: it is lost for good, or was closed."""
        while not self._closing.wait(_BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)]):
            if time.monotonic() - self._last > self._lost_s:
                with self._change:
                    self._failure = failure
                    self._change.notify_all()
                return None
            try:
                reader = self._opened()
            except VideoNotReadable as error:
                attempt, failure = attempt + 1, error
            else:
                self._reconnects += 1
                return reader
        return None

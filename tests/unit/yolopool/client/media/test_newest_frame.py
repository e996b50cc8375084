"""A live source: the newest frame alone is kept, and a source that is lost is opened again."""

import queue
import threading
from collections.abc import Generator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from yolopool.client.media import newest_frame
from yolopool.client.media.newest_frame import NewestFrame
from yolopool.client.media.outcomes import Video
from yolopool.client.media.video_reader import Frame
from yolopool.errors import VideoNotReadable

END = None
FRAME = Frame(0, 0.0, np.zeros((2, 2, 3), np.uint8))


class Camera:
    """Gives what is put into it: frames, END, or an error. `openings`: the error of each."""

    def __init__(self, *openings: Exception | None) -> None:
        self.video = Video("camera 0", Fraction(25), (2, 2), 0, True)
        self.openings = list(openings)
        self.given: queue.Queue[Any] = queue.Queue()
        self.taken = threading.Semaphore(0)
        self.closed = 0

    def __call__(self) -> "Camera":
        if self.openings and (error := self.openings.pop(0)) is not None:
            raise error
        return self

    def frames(self) -> Generator[Frame, None, None]:
        while True:
            one = self.given.get()
            self.taken.release()
            if one is END:
                return
            if isinstance(one, Exception):
                raise one
            yield one

    def close(self) -> None:
        self.closed += 1

    def give(self, *all_given: Any) -> None:
        """Returns when the last one is asked for the one behind it, so all were put."""
        for one in all_given:
            self.given.put(one)
        for _ in all_given:
            assert self.taken.acquire(timeout=10)


def ended(live: NewestFrame, camera: Camera) -> None:
    """Closes it, and lets its thread see that."""
    live.close()
    camera.given.put(END)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_frame, "_BACK_OFF_S", (0.0,))


def test_a_slow_taker_gets_the_newest_and_a_count() -> None:
    camera = Camera()
    live = NewestFrame(camera, 60)
    frames = live.frames()
    camera.give(FRAME)
    assert next(frames).frame.index == 0
    camera.give(FRAME, FRAME, FRAME, FRAME)
    camera.give(END)  # taken once all frames were put
    newest = next(frames)
    assert (newest.frame.index, newest.dropped) == (4, 3)
    ended(live, camera)


def test_a_lost_source_is_opened_again_and_goes_on_counting() -> None:
    camera = Camera(None, VideoNotReadable("still away"), None)
    live = NewestFrame(camera, 60)
    frames = live.frames()
    camera.give(FRAME)
    assert next(frames).reconnects == 0
    camera.give(VideoNotReadable("cut"), FRAME)
    again = next(frames)
    assert (again.frame.index, again.reconnects, again.dropped) == (1, 1, 0)
    camera.give(END, FRAME)
    assert next(frames).reconnects == 2
    assert camera.closed == 2
    ended(live, camera)


def test_a_source_that_stays_away_is_told() -> None:
    camera = Camera(None, *[VideoNotReadable("connection refused")] * 10_000)
    live = NewestFrame(camera, 0.0)
    frames = live.frames()
    camera.give(FRAME, END)
    with pytest.raises(VideoNotReadable, match=r"ended|refused"):
        for _ in frames:
            pass


def test_what_can_not_be_opened_at_first_is_said_at_once() -> None:
    with pytest.raises(VideoNotReadable, match="no route"):
        NewestFrame(Camera(VideoNotReadable("no route")), 60)


def test_closing_ends_whoever_waits() -> None:
    camera = Camera()
    live = NewestFrame(camera, 60)
    found: queue.Queue[list[Any]] = queue.Queue()
    waiting = threading.Thread(target=lambda: found.put(list(live.frames())), daemon=True)
    waiting.start()
    ended(live, camera)
    assert found.get(timeout=10) == []

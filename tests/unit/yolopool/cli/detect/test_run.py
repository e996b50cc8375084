"""Several live sources at a time: each has its turn, and Ctrl-C has one too."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import numpy as np

from yolopool.cli.detect.outputs import Answered, Result
from yolopool.cli.detect.run import Asked, Run
from yolopool.cli.detect.told import Told
from yolopool.client.client import Client
from yolopool.client.media.outcomes import FrameAnswer, Video
from yolopool.client.media.sources import Source, SourceKind
from yolopool.errors import ImageNotDecodable

WRITES = 30


class EndlessClient:
    """Has the next frame of every source at once."""

    def detect_video(self, place: str, *_: object, **__: object) -> Iterator[FrameAnswer]:
        video = Video(place, Fraction(25), (4, 4), 0, True)
        pixels = np.zeros((4, 4, 3), np.uint8)
        index = 0
        while True:
            yield FrameAnswer(None, ImageNotDecodable("no luck"), video, index, 0.0, pixels)
            index += 1


class SlowOutput:
    """All others wait when a write ends; Ctrl-C comes after `WRITES`."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.closed_after = 0

    def add(self, result: Result) -> None:
        raise AssertionError("no frame has detections")

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        time.sleep(0.02)
        self.writes.append(source.name)
        if len(self.writes) == WRITES:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)

    def end(self, number: int) -> None:
        pass

    def close(self) -> None:
        self.closed_after = len(self.writes)


def live(name: str) -> Source:
    return Source(SourceKind.LIVE, name, name, name)


def test_live_sources_take_turns_and_ctrl_c_is_not_held_back(capsys: Any) -> None:
    output = SlowOutput()
    asked = Asked("m", {}, None, False, None, 1.0)
    run = Run(cast(Client, EndlessClient()), asked, Told(0, False, True), [output])
    run.all([live("a"), live("b"), live("c")], quiet=True)
    run.close()
    turns = Counter(output.writes[:WRITES])
    assert min(turns[name] for name in "abc") >= WRITES // 3 - 3, turns
    assert output.closed_after < 2 * WRITES
    assert capsys.readouterr().err.count("no luck") == 3

"""What `detect` prints: tables of a few images, lines of many, and what a source came to."""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from yolopool.cli import result_tables
from yolopool.cli.console import as_line, out, print_error, print_json, say
from yolopool.cli.detect.outputs import Answered, Failure, Result, refused
from yolopool.cli.tables import plain_table
from yolopool.client.detections import Detections
from yolopool.client.media.outcomes import FrameAnswer
from yolopool.client.media.sources import Source

# Of more images, a table each is more than people read.
MAX_TABLES = 10


@dataclass(slots=True)
class _Sum:
    """What one video came to so far."""

    frames: int = 0
    failed: int = 0
    dropped: int = 0
    reconnects: int = 0
    objects: Counter[str] = field(default_factory=Counter)


class Told:
    """Prints the answers of one command in their order. `quiet`: stdout belongs to another form."""

    def __init__(self, images: int, as_json: bool, quiet: bool) -> None:
        self.failures: list[Failure] = []
        self.answered = 0
        self._as_json, self._quiet = as_json, quiet
        self._in_tables = images <= MAX_TABLES
        self._timed: list[tuple[str, Detections]] = []
        self._plain: list[dict[str, Any]] = []
        self._sums: dict[str, _Sum] = {}
        self._images = 0
        # Seconds of images and of frames: what an answer took since the one before it.
        self._spent_s = {"images": 0.0, "frames": 0.0}
        self._last = time.monotonic()

    def result(self, result: Result) -> None:
        self.answered += 1
        self._pass_time(result.frame)
        if self._as_json:
            self._plain.append(result.to_dict())
        if result.frame is not None:
            one = self._sum(result.source, result.frame)
            one.objects.update(result.found.class_name)
            return
        self._images += 1
        if self._as_json or self._quiet:
            return
        name = result.source.stem if result.source.place == "-" else result.source.place
        short = name.rpartition("/")[2]
        if self._in_tables:
            self._timed.append((short, result.found))
            out.print(result_tables.results(result.found, short))
            out.print()
        else:
            ms = result.found.timing.total_ms
            sys.stdout.write(f"{result.source.name}: {result.found.in_words()}, {ms:.1f} ms\n")

    def failed(self, source: Source, answer: Answered) -> None:
        """Of a video only its first failure is a line; the others are counted."""
        assert answer.error is not None
        frame = answer if isinstance(answer, FrameAnswer) else None
        self._pass_time(frame)
        if self._as_json:
            self._plain.append(refused(source, answer))
        if frame is None:
            self._images += 1
            self.error(source.name, answer.error)
            return
        one = self._sum(source, frame)
        one.failed += 1
        if one.failed == 1:
            self.error(f"{source.name} frame {frame.index}", answer.error)

    def error(self, about: str, error: Failure) -> None:
        """Something that went wrong, with what."""
        self.failures.append(error)
        print_error(as_line(error, about))

    def _pass_time(self, frame: FrameAnswer | None) -> None:
        now = time.monotonic()
        self._spent_s["images" if frame is None else "frames"] += now - self._last
        self._last = now

    def _sum(self, source: Source, frame: FrameAnswer) -> _Sum:
        one = self._sums.setdefault(source.name, _Sum())
        one.frames += 1
        one.dropped, one.reconnects = frame.dropped, frame.reconnects
        return one

    def end(self) -> None:
        """What is printed of everything together."""
        if self._as_json:
            if self._plain:
                print_json(self._plain)
        elif not self._quiet:
            if self._timed:
                out.print(result_tables.timing(self._timed))
            if self._sums:
                out.print(self._of_videos())
        frames = sum(one.frames for one in self._sums.values())
        for what, count in (("images", self._images), ("frames", frames)):
            seconds = self._spent_s[what]
            if count > MAX_TABLES and seconds > 0:
                say(f"{count} {what} in {seconds:.2f} s, {count / seconds:.1f} a second")

    def _of_videos(self) -> Table:
        table = plain_table("VIDEO", "FRAMES ", "FAILED ", "DROPPED ", "RECONNECTS ", "OBJECTS")
        for name, one in self._sums.items():
            objects = ", ".join(f"{count} {what}" for what, count in one.objects.most_common())
            counts = (one.frames, one.failed, one.dropped, one.reconnects)
            table.add_row(name, *map(str, counts), objects or "none")
        return table

"""What `detect --save` writes: pictures, videos, and texts in the form that another tool reads."""

import csv
import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from PIL import Image

from yolopool.cli.console import say
from yolopool.cli.detect import saving
from yolopool.cli.detect.places import STDOUT, Form, Places
from yolopool.client.detections import Detections
from yolopool.client.export import coco, flat_rows
from yolopool.client.media.outcomes import FrameAnswer, ImageAnswer
from yolopool.client.media.sources import Source
from yolopool.client.media.video_writer import VideoWriter
from yolopool.errors import InvalidOption, YolopoolError

Failure = YolopoolError | OSError
Answered = ImageAnswer | FrameAnswer
# More pictures than this are told by their folder.
MAX_NAMED = 10
# Pillow lets other threads run while it reads and writes files.
_DRAWN_AT_ONCE = 4
# Called with what an error is about, and the error.
Tell = Callable[[str, Failure], None]


@dataclass(frozen=True, slots=True)
class Result:
    """The detections of an image or of a frame of the source of this `number`."""

    source: Source
    number: int
    found: Detections
    frame: FrameAnswer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {**where(self.source, self.frame), **self.found.to_dict()}


def where(source: Source, frame: FrameAnswer | None) -> dict[str, Any]:
    """Which image or frame a row is about."""
    if frame is None:
        return {"path": source.name}
    return {"path": source.name, "frame": frame.index, "time_s": round(frame.time_s, 6)}


def refused(source: Source, answer: Answered) -> dict[str, Any]:
    """The row of an image or frame that has no detections."""
    error = answer.error
    reason = error.reason if isinstance(error, YolopoolError) else "FILE_UNREADABLE"
    frame = answer if isinstance(answer, FrameAnswer) else None
    return {**where(source, frame), "error": {"reason": reason, "message": str(error)}}


class Output(Protocol):
    """Takes results in order. Raises YolopoolError and OSError for one that can't be written."""

    def add(self, result: Result) -> None: ...
    def fail(self, source: Source, number: int, answer: Answered) -> None: ...
    def end(self, number: int) -> None: ...
    def close(self) -> None: ...


class _Output:
    """Nothing at these moments, unless a form has something to do."""

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        """An image or frame has no detections."""

    def end(self, number: int) -> None:
        """The source has ended."""

    def close(self) -> None:
        """All sources have ended."""


def opened(places: Places, with_frames: bool, with_tracks: bool, tell: Tell) -> list[Output]:
    """An output for each form; `with_frames`: a source has frames, which may be tracked. `tell` is
    called with what failed after its result was taken.
    """
    found: list[Output] = []
    if Form.IMAGES in places.forms:
        found.append(_Pictures(places, tell))
    if Form.VIDEO in places.forms:
        found.append(_Videos(places))
    if Form.YOLO in places.forms:
        found.append(_Labels(places))
    for form, path in places.lists.items():
        if form is Form.CSV:
            found.append(_Csv(path, with_frames, with_tracks))
        else:
            found.append(_JsonLines(path) if form is Form.JSONL else _Coco(path))
    return found


class _Pictures(_Output):
    """A picture of each image; of a video, a folder with one of each frame, numbered from 1.

    They are drawn on threads, and told in their order.
    """

    def __init__(self, places: Places, tell: Tell) -> None:
        self._places, self._tell = places, tell
        self._is_few = len(places.files) <= MAX_NAMED
        self._counts = Counter[Path]()
        self._threads = ThreadPoolExecutor(_DRAWN_AT_ONCE, "draw")
        self._begun = deque[tuple[Result, Path, Future[None]]]()

    def add(self, result: Result) -> None:
        if result.frame is None:
            target = self._places.files[result.number]
        elif self._places.of_frames:
            folder = self._places.folder / self._places.stems[result.number]
            folder.mkdir(exist_ok=True)
            target = folder / f"{result.frame.index + 1:06}.jpg"
        else:
            return
        drawn = self._threads.submit(saving.write, result.found, target)
        self._begun.append((result, target, drawn))
        if len(self._begun) > 2 * _DRAWN_AT_ONCE:
            self._end_first()

    def _end_first(self) -> None:
        result, target, drawn = self._begun.popleft()
        try:
            drawn.result()
        except (YolopoolError, OSError) as error:
            self._tell(result.source.name, error)
            return
        if result.frame is None and self._is_few:
            say(f"saved {target}")
        else:
            self._counts[target.parent] += 1

    def close(self) -> None:
        while self._begun:
            self._end_first()
        self._threads.shutdown()
        for folder, count in self._counts.items():
            say(f"saved {count} pictures in {folder}")


class _Videos(_Output):
    """The video of each source with the results drawn; frames without an answer stay as they are.

    It is written beside its place, and takes it when it is whole. One that can't be written is
    given up at once.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._open: dict[int, tuple[VideoWriter, Path, Path]] = {}
        self._lost = set[int]()

    def add(self, result: Result) -> None:
        if result.frame is not None and result.number not in self._lost:
            self._add(result.number, result.frame, result.found.plot(result.frame.picture))

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        if isinstance(answer, FrameAnswer) and number not in self._lost:
            self._add(number, answer, answer.picture)

    def _add(self, number: int, frame: FrameAnswer, picture: Image.Image) -> None:
        target = self._places.files[number]
        try:
            if number not in self._open:
                part = target.with_name(f".part-{target.name}")
                self._open[number] = VideoWriter(part, frame.video), part, target
            self._open[number][0].add(picture, frame.time_s)
        except (YolopoolError, OSError, ValueError) as error:
            self._lost.add(number)
            if number in self._open:
                writer, part, _ = self._open.pop(number)
                with suppress(OSError, ValueError):
                    writer.abandon()
                with suppress(OSError):
                    part.unlink()
            raise _unwritten(error, target) from error

    def end(self, number: int) -> None:
        if number not in self._open:
            return
        writer, part, target = self._open.pop(number)
        try:
            writer.close()
            part.replace(target)
        except (OSError, ValueError) as error:
            with suppress(OSError):
                part.unlink()
            raise _unwritten(error, target) from error
        say(f"saved {target}")

    def close(self) -> None:
        for number in list(self._open):
            self.end(number)


def _unwritten(error: Exception, target: Path) -> Exception:
    """The error with the file's name, which FFmpeg's errors, OSError or ValueError, do not have."""
    if isinstance(error, YolopoolError):
        return error
    said = getattr(error, "strerror", None) or str(error)
    return OSError(getattr(error, "errno", None), said, str(target))


class _Labels(_Output):
    """YOLO's label files, as the model library names them: labels/street.txt, and of the frames of
    a video labels/clip_1.txt and so on. Where nothing was found there is none.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._folder = places.folder / "labels"
        self._folder.mkdir(exist_ok=True)
        self._count = 0

    def add(self, result: Result) -> None:
        stem = self._places.stems[result.number]
        if result.frame is not None:
            stem = f"{stem}_{result.frame.index + 1}"
        try:
            text = result.found.to_yolo()
        except ValueError as error:
            raise InvalidOption(f"--as yolo: {error}") from error
        if text:
            (self._folder / f"{stem}.txt").write_text(text, encoding="utf-8")
            self._count += 1

    def close(self) -> None:
        say(f"saved {self._count} label files in {self._folder}")


class _Text(_Output):
    """A text file, or stdout. Once it can't be written, that is said, and no more is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO = (
            sys.stdout if path == STDOUT else path.open("w", encoding="utf-8", newline="")
        )
        self._is_lost = False

    def write(self, text: str) -> None:
        """Flushed: whoever reads a live stream's lines waits for each."""
        if self._is_lost:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            self._is_lost = True
            name = "stdout" if self._path == STDOUT else str(self._path)
            raise OSError(error.errno, error.strerror, name) from error

    def close(self) -> None:
        if self._path == STDOUT:
            return
        with suppress(OSError) if self._is_lost else nullcontext():
            self._file.close()
        if not self._is_lost:
            say(f"saved {self._path}")


class _JsonLines(_Text):
    """An object a line for each image or frame, those that failed too."""

    def add(self, result: Result) -> None:
        self._line(result.to_dict())

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        self._line(refused(source, answer))

    def _line(self, row: dict[str, Any]) -> None:
        self.write(json.dumps(row) + "\n")


class _Csv(_Text):
    """A row for each object, or for each class of a classification."""

    def __init__(self, path: Path, with_frames: bool, with_tracks: bool) -> None:
        super().__init__(path)
        self._writer: Any = None
        self._about = ("path", "frame", "time_s") if with_frames else ("path",)
        self._track = (flat_rows.TRACK,) if with_frames and with_tracks else ()
        self._columns: Sequence[str] = flat_rows.COLUMNS

    def add(self, result: Result) -> None:
        about = where(result.source, result.frame)
        if self._writer is None:
            self._columns = flat_rows.columns(result.found)
        for row in flat_rows.rows(result.found):
            if self._writer is None:
                self._begin()
            if "segmentation" in row:
                row["segmentation"] = json.dumps(row["segmentation"])
            self._writer.writerow(about | row)

    def _begin(self) -> None:
        # All images have the columns of the first object: the model has one task.
        columns = tuple(dict.fromkeys((*self._about, *self._columns, *self._track)))
        self._writer = csv.DictWriter(self, columns, extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()

    def close(self) -> None:
        if self._writer is None:
            self._begin()
        super().close()


class _Coco(_Text):
    """A data set of all images and frames, written at the end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._images: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}

    def add(self, result: Result) -> None:
        width, height = result.found.image_size
        image = {"id": len(self._images) + 1, "width": width, "height": height}
        about = where(result.source, result.frame)
        try:
            rows = list(coco.annotations(result.found, image["id"], len(self._rows) + 1))
        except ValueError as error:
            raise InvalidOption(f"--as coco: {error}") from error
        self._images.append({**image, "file_name": about.pop("path"), **about})
        self._rows.extend(rows)
        ids = result.found.class_id.tolist()
        self._names.update(zip(ids, result.found.class_name, strict=True))

    def close(self) -> None:
        try:
            self.write(json.dumps(coco.data_set(self._images, self._rows, self._names)) + "\n")
        finally:
            super().close()

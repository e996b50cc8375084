"""What `detect --save` writes: pictures, videos, and texts in the form that another tool reads."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
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


def opened(places: Places, with_frames: bool) -> list[Output]:
    """An output for each form; `with_frames`: a source has frames."""
    found: list[Output] = []
    if Form.IMAGES in places.forms:
        found.append(_Pictures(places))
    if Form.VIDEO in places.forms:
        found.append(_Videos(places))
    if Form.YOLO in places.forms:
        found.append(_Labels(places))
    for form, path in places.lists.items():
        if form is Form.CSV:
            found.append(_Csv(path, with_frames))
        else:
            found.append(_JsonLines(path) if form is Form.JSONL else _Coco(path))
    return found


class _Pictures(_Output):
    """A picture of each image; of a video, a folder with one of each frame, numbered from 1."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._is_few = len(places.files) <= MAX_NAMED
        self._counts = Counter[Path]()

    def add(self, result: Result) -> None:
        if result.frame is None:
            target = self._places.files[result.number]
            saving.write(result.found, target)
            if self._is_few:
                say(f"saved {target}")
            else:
                self._counts[target.parent] += 1
        elif self._places.of_frames:
            folder = self._places.folder / self._places.stems[result.number]
            folder.mkdir(exist_ok=True)
            saving.write(result.found, folder / f"{result.frame.index + 1:06}.jpg")
            self._counts[folder] += 1

    def close(self) -> None:
        for folder, count in self._counts.items():
            say(f"saved {count} pictures in {folder}")


class _Videos(_Output):
    """The video of each source with the results drawn; frames without an answer stay as they are.

    It is written beside its place, and takes it when it is whole.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._open: dict[int, tuple[VideoWriter, Path, Path]] = {}

    def add(self, result: Result) -> None:
        if result.frame is not None:
            self._add(result.number, result.frame, result.found.plot(result.frame.picture))

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        if isinstance(answer, FrameAnswer):
            self._add(number, answer, answer.picture)

    def _add(self, number: int, frame: FrameAnswer, picture: Image.Image) -> None:
        if number not in self._open:
            target = self._places.files[number]
            part = target.with_name(f".part-{target.name}")
            self._open[number] = VideoWriter(part, frame.video), part, target
        self._open[number][0].add(picture, frame.time_s)

    def end(self, number: int) -> None:
        if number not in self._open:
            return
        writer, part, target = self._open.pop(number)
        try:
            writer.close()
            part.replace(target)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        say(f"saved {target}")

    def close(self) -> None:
        for number in list(self._open):
            self.end(number)


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
    """A text file, or stdout."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO = (
            sys.stdout if path == STDOUT else path.open("w", encoding="utf-8", newline="")
        )

    def close(self) -> None:
        if self._path == STDOUT:
            self._file.flush()
            return
        self._file.close()
        say(f"saved {self._path}")


class _JsonLines(_Text):
    """An object a line for each image or frame, those that failed too."""

    def add(self, result: Result) -> None:
        self._write(result.to_dict())

    def fail(self, source: Source, number: int, answer: Answered) -> None:
        self._write(refused(source, answer))

    def _write(self, row: dict[str, Any]) -> None:
        # Flushed: whoever reads a live stream's lines waits for each.
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


class _Csv(_Text):
    """A row for each object, or for each class of a classification."""

    def __init__(self, path: Path, with_frames: bool) -> None:
        super().__init__(path)
        self._writer: Any = None
        self._about = ("path", "frame", "time_s") if with_frames else ("path",)
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
        self._file.flush()

    def _begin(self) -> None:
        # All images have the columns of the first object: the model has one task.
        columns = (*self._about, *self._columns)
        self._writer = csv.DictWriter(
            self._file, columns, extrasaction="ignore", lineterminator="\n"
        )
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
        json.dump(coco.data_set(self._images, self._rows, self._names), self._file)
        self._file.write("\n")
        super().close()

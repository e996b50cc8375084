"""`yolopool detect`: each image is asked for by itself, and one that fails loses no other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from yolopool.cli import result_tables
from yolopool.cli.console import (
    Address,
    AsJson,
    as_line,
    exit_code,
    out,
    print_error,
    print_json,
    say,
)
from yolopool.cli.detect import saving
from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.requests import DetectOptions, MaskFormatName, PriorityName
from yolopool.errors import (
    FailedPrecondition,
    InvalidArgument,
    InvalidOption,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    YolopoolError,
)
from yolopool.transport import DEFAULT_ADDRESS

Failure = YolopoolError | OSError
_OF_ALL = (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


def detect(
    images: Annotated[list[Path], typer.Argument(help="Image files: JPEG, PNG, WebP and others.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of the model, or NAME@VERSION.")
    ],
    confidence: Annotated[
        float | None, typer.Option("--conf", help="Report only results of this confidence, 0..1.")
    ] = None,
    class_confidences: Annotated[
        list[str] | None,
        typer.Option("--class-conf", help="Least confidence of one class, ID=VALUE; repeatable."),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option("--iou", help="NMS drops boxes that overlap a better one by this, 0..1."),
    ] = None,
    agnostic_nms: Annotated[
        bool, typer.Option("--agnostic-nms", help="Suppress boxes of different classes too.")
    ] = False,
    max_detections: Annotated[
        int | None, typer.Option("--max-det", help="Report at most this many objects.")
    ] = None,
    classes: Annotated[
        list[int] | None, typer.Option("--class", help="Report only this class id; repeatable.")
    ] = None,
    region_of_interest: Annotated[
        str | None,
        typer.Option("--roi", help="Look only here: X_MIN,Y_MIN,X_MAX,Y_MAX in pixels."),
    ] = None,
    masks: Annotated[
        str | None, typer.Option("--masks", help="Form of masks: polygon (default), rle or none.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top", help="Classes to name in a classification.")
    ] = None,
    all_probabilities: Annotated[
        bool,
        typer.Option("--all-probabilities", help="Add the probability of every class (--json)."),
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option("--imgsz", help="Scale the longest side to this; the model must allow it."),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option("--tile", help="Cut the image into tiles of this side; 0: the model's size."),
    ] = None,
    tile_overlap: Annotated[
        float | None, typer.Option("--overlap", help="Overlap of neighbouring tiles, 0..0.9.")
    ] = None,
    accept_damaged: Annotated[
        bool,
        typer.Option("--accept-damaged", help="Run a JPEG of which parts can't be read, too."),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the image with the results drawn: a file or folder."),
    ] = None,
    priority: Annotated[
        str, typer.Option("--priority", help="Who is served first: interactive, normal or bulk.")
    ] = "normal",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of each image, in seconds.")
    ] = 30.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Run a model on images and print what it finds."""
    options: DetectOptions = {
        "confidence": confidence,
        "class_confidences": _class_confidences(class_confidences or ()),
        "iou": iou,
        "agnostic_nms": agnostic_nms,
        "max_detections": max_detections,
        "classes": classes or (),
        "region_of_interest": _region(region_of_interest),
        "masks": cast(MaskFormatName | None, masks),
        "top_k": top_k,
        "all_probabilities": all_probabilities,
        "image_size": image_size,
        "tile_size": tile_size,
        "tile_overlap": tile_overlap,
        "accept_damaged": accept_damaged,
        "priority": cast(PriorityName, priority),
        "timeout_s": timeout_s,
    }
    run = _Run(as_json, saving.targets(images, save) if save is not None else ())
    try:
        with Client(address) as client:
            for image in images:
                try:
                    found = client.detect(image, model, **options)
                except (YolopoolError, OSError) as error:
                    if run.ends_with(error):
                        raise
                    run.failed(image, error)
                else:
                    run.answered(image, found)
    finally:
        run.print_all()
    if run.failures:
        raise typer.Exit(exit_code(run.failures[0]))


class _Run:
    """The answers of one command, in the order of its images."""

    def __init__(self, as_json: bool, targets: Sequence[Path]) -> None:
        self.failures: list[Failure] = []
        self._as_json = as_json
        self._targets = iter(targets)
        self._answers: list[tuple[Path, Detections]] = []
        self._plain: list[dict[str, Any]] = []

    def answered(self, image: Path, found: Detections) -> None:
        """Prints and saves the answer."""
        self._answers.append((image, found))
        self._plain.append({"path": str(image), **found.to_dict()})
        if not self._as_json:
            out.print(result_tables.results(found, image.name))
            out.print()
        target = next(self._targets, None)
        if target is None:
            return
        try:
            saving.write(found, target)
            say(f"saved {target}")
        except (YolopoolError, OSError) as error:
            self._tell(image, error)

    def failed(self, image: Path, error: Failure) -> None:
        """Prints why this image has no answer."""
        next(self._targets, None)
        self._tell(image, error)
        reason = error.reason if isinstance(error, YolopoolError) else "FILE_UNREADABLE"
        self._plain.append({"path": str(image), "error": {"reason": reason, "message": str(error)}})

    def ends_with(self, error: Failure) -> bool:
        """Whether the other images would fail alike: nobody answers, or no image was answered yet
        and the error is of the model or the options.
        """
        if isinstance(error, OSError) or error.reason.startswith("IMAGE_"):
            return False
        of_all = isinstance(error, _OF_ALL) and not self._answers
        return of_all or error.reason == "UNAVAILABLE"

    def print_all(self) -> None:
        """What is printed of all images together."""
        if self._as_json and self._plain:
            print_json(self._plain)
        elif self._answers:
            out.print(result_tables.timing([(image.name, found) for image, found in self._answers]))

    def _tell(self, image: Path, error: Failure) -> None:
        self.failures.append(error)
        print_error(as_line(error, str(image)))


def _class_confidences(pairs: Sequence[str]) -> dict[int, float]:
    try:
        return {int(name): float(value) for name, _, value in (p.partition("=") for p in pairs)}
    except ValueError as error:
        raise InvalidOption("--class-conf takes ID=VALUE, such as 3=0.5") from error


def _region(text: str | None) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text is not None else None
    except ValueError as error:
        raise InvalidOption(
            f"--roi {text!r}: give X_MIN,Y_MIN,X_MAX,Y_MAX in pixels, such as 0,0,640,480"
        ) from error

"""`yolopool detect`: its options, and what they mean together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from yolopool.cli.completion import pool_names
from yolopool.cli.console import Address, AsJson, exit_code
from yolopool.cli.detect.outputs import opened
from yolopool.cli.detect.places import STDOUT, settled
from yolopool.cli.detect.run import STDIN, Asked, Run
from yolopool.cli.detect.told import Told
from yolopool.client.client import Client
from yolopool.client.media.sources import Source, SourceKind, sources_of
from yolopool.client.media.video import LOST_S
from yolopool.client.media.video_reader import pyav
from yolopool.client.requests import DetectOptions, MaskFormatName, PriorityName
from yolopool.errors import InvalidOption
from yolopool.transport import DEFAULT_ADDRESS


def detect(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images, videos, folders, patterns such as 'photos/**/*.jpg', camera numbers, "
            "addresses of streams (rtsp://...), or - for an image on stdin.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Name of the model, or NAME@VERSION.",
            autocompletion=pool_names.models,
        ),
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
        typer.Option("--save", help="Write the results to this file or folder; -: to stdout."),
    ] = None,
    forms: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            help="Form to save: images or video with the results drawn (default), jsonl, csv, "
            "coco or yolo; repeatable.",
        ),
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Number the objects of a video from frame to frame.")
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", help="Calls at a time; default 8, and 1 for live sources."),
    ] = None,
    jpeg_quality: Annotated[
        int | None,
        typer.Option("--jpeg-quality", help="Send frames of videos as JPEG, 1..100: fewer bytes."),
    ] = None,
    lost_s: Annotated[
        float,
        typer.Option("--lost-after", help="Give a live source up after so many seconds without."),
    ] = LOST_S,
    priority: Annotated[
        str, typer.Option("--priority", help="Who is served first: interactive, normal or bulk.")
    ] = "normal",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of each image, in seconds.")
    ] = 30.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Run a model on images, videos and streams."""
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
    sources = _sources(given)
    places = settled(sources, save, forms or ())
    on_stdout = STDOUT in places.lists.values()
    if on_stdout and as_json:
        raise InvalidOption("--save - and --json both print on stdout: leave one out")
    images = sum(source.kind is SourceKind.IMAGE for source in sources)
    has_videos = images < len(sources)
    if has_videos:
        pyav()  # told before anything is asked
    asked = Asked(model, options, concurrency, track, jpeg_quality, lost_s)
    with Client(address) as client:
        told = Told(images, as_json, on_stdout)
        outputs = opened(places, has_videos, track, told.error)
        run = Run(client, asked, told, outputs)
        try:
            run.all(sources, quiet=as_json)
        finally:
            run.close()
            told.end()
    if told.failures:
        raise typer.Exit(exit_code(told.failures[0]))


def _sources(given: Sequence[str]) -> list[Source]:
    """What was given, in order; "-" is one image on stdin."""
    stdin = Source(SourceKind.IMAGE, STDIN, STDIN, "stdin")
    if list(given).count(STDIN) > 1:
        raise InvalidOption("- is the one image on stdin: give it once")
    return [one for text in given for one in ([stdin] if text == STDIN else sources_of(text))]


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

"""`yolopool bench`: measures a model's batch-latency curve and can store the best batch size."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from yolopool.cli.completion import pool_names
from yolopool.cli.console import (
    Address,
    AsJson,
    ModelRef,
    out,
    plain,
    print_json,
    say,
)
from yolopool.cli.curves import bench_curves
from yolopool.cli.svg_chart import COLOURS
from yolopool.client.client import Client
from yolopool.client.fleet_records import BenchPoint
from yolopool.client.model_records import Batching
from yolopool.errors import DeadlineExceeded, InvalidOption, ResourceExhausted
from yolopool.evaluation.knee import Knee, knee
from yolopool.transport import DEFAULT_ADDRESS


def bench(
    model: ModelRef,
    worker: Annotated[
        str,
        typer.Option(
            help="Measure on this worker; default: any that holds it.",
            autocompletion=pool_names.workers,
        ),
    ] = "",
    device: Annotated[
        str, typer.Option(help="Measure on this kind of device: cpu, cuda or sim.")
    ] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes, comma separated.")] = "1,2,4,8,16",
    shape: Annotated[
        str, typer.Option(help="Image sizes WIDTHxHEIGHT, comma separated; default: the model's.")
    ] = "",
    seconds: Annotated[float, typer.Option(help="Seconds of passes for each point.")] = 1.0,
    image: Annotated[
        Path | None, typer.Option(help="Image file to run; default: rectangles on noise.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Set the model's batching to the best size found.")
    ] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the curve to this SVG file.")] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of the whole measurement, in seconds.")
    ] = 600.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Measure a model's speed by batch size.

    It runs beside the model's traffic and names the knee: the batch size beyond which a larger one
    costs more latency than it gains throughput.
    """
    asked = shapes_of(shape)
    if svg is not None and len(asked) > len(COLOURS):
        raise InvalidOption(f"--svg has colours for {len(COLOURS)} shapes: give that many at most")
    with Client(address) as client:
        coming = client.bench(
            model,
            worker=worker,
            device_kind=device,
            shapes=asked,
            batch_sizes=numbers(batch),
            seconds=seconds,
            image=image,
            timeout_s=timeout_s,
        )
        points = newest(coming) if as_json else shown(coming)
        shapes = bench_curves.by_shape(points)
        if not shapes:
            raise ResourceExhausted(f"no point could be measured: {points[0].message}")
        knees = {name: knee(them) for name, them in shapes.items()}
        name, first = next(iter(knees.items()))
        whole = bench_curves.is_whole(points, max(1, len(asked)))
        if store and whole:
            _store(client, shapes[name], first, quiet=as_json)
    if svg is not None:
        if all(len(them) < 2 for them in shapes.values()):
            raise InvalidOption(
                "--svg needs two measured points of a shape: give more sizes to --batch"
            )
        svg.write_text(bench_curves.picture(points, first, whole), encoding="utf-8")
    if as_json:
        found = {name: plain(best) for name, best in knees.items()}
        print_json({"points": [plain(point) for point in points], "knees": found, "whole": whole})
    else:
        for name, one in knees.items():
            out.print(bench_curves.bars(shapes[name], one))
            out.print(f"knee at {name}: {one.says()}", highlight=False)
    if not whole:
        say("the sweep was cut before its end: the knee is that of the points measured so far")
        if store:
            raise DeadlineExceeded(
                "nothing is stored, because the sweep was cut: raise --timeout, ask for fewer "
                "points, or check that the worker is still there"
            )


def newest(
    coming: Iterable[BenchPoint], each: Callable[[list[BenchPoint]], None] = lambda points: None
) -> list[BenchPoint]:
    """The last measurement of each point; `each` is called with all of them after every one."""
    points: dict[tuple[str, int], BenchPoint] = {}
    for point in coming:
        points[point.shape, point.batch] = point
        each(list(points.values()))
    return list(points.values())


def shown(coming: Iterable[BenchPoint]) -> list[BenchPoint]:
    """The points; on a terminal, in a table that grows with them."""
    with Live(console=out, auto_refresh=False) as live:
        points = newest(
            coming, lambda known: live.update(bench_curves.table(known), refresh=out.is_terminal)
        )
    for point in points:
        if point.reason:
            say(f"{point.shape} x{point.batch} left out: {point.reason}: {point.message}")
    out.print()
    return points


def _store(client: Client, measured: list[BenchPoint], found: Knee, quiet: bool) -> None:
    """Sets the version's batching on this kind of device to the knee; keeps its other settings."""
    point = measured[0]
    (version,) = client.model(point.model).versions
    sizes = tuple(point.batch for point in measured if point.batch <= found.batch)
    now = version.batching.get(point.device_kind, Batching())
    settings = replace(now, max_batch=found.batch, preferred_sizes=sizes)
    client.set_batching(point.model, point.device_kind, settings)
    if not quiet:
        words = ", ".join(map(str, sizes))
        say(f"stored for {point.device_kind}: max batch {found.batch}, preferred {words}")


def shapes_of(text: str) -> list[tuple[int, int]]:
    """(height, width) of each, once."""
    return list(dict.fromkeys(_shape(word) for word in _words(text)))


def numbers(text: str) -> list[int]:
    """Batch sizes."""
    return [_batch(word) for word in _words(text)]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _batch(word: str) -> int:
    if not word.isdecimal():
        raise InvalidOption(f"--batch has {word!r}: give whole numbers, such as 1,2,4")
    return int(word)


def _shape(word: str) -> tuple[int, int]:
    """(height, width)."""
    width, _, height = word.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InvalidOption(f"--shape has {word!r}: give WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)

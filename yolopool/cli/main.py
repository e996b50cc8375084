"""The command line: every command is one or two calls of the client and one table.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not possible in this state.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

import yolopool
from yolopool.cli import bench, explain, models, result_tables, tables
from yolopool.cli import fleet as cli_fleet
from yolopool.cli.console import (
    EXIT_CODES,
    Address,
    AsJson,
    SectionedGroup,
    out,
    plain,
    print_error,
    print_json,
    say,
)
from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.requests import DetectOptions, MaskFormatName, PriorityName
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.local import demo as demo_files
from yolopool.local import pool as local_pool
from yolopool.transport import DEFAULT_ADDRESS


class _Commands(SectionedGroup):
    sections = {  # noqa: RUF012 - typed in the base class
        "Start a pool on this machine": ["up", "demo"],
        "Use models": ["detect", "models", "bench", "changeover", "schedules"],
        "See what the pool does": ["status", "workers", "events", "explain"],
        "Run one process of a pool": ["control-plane", "worker", "importer"],
        "Other": ["version"],
    }


HELP = """Serve many YOLO models from few GPUs.

A pool is a control plane, which decides where each model is loaded, and one
worker for every GPU or CPU. Commands talk to the control plane at --address
(or YOLOPOOL_ADDRESS).

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid
input, 5 unavailable, 6 deadline exceeded, 7 no room (queue or memory), 8 not
possible in this state.
"""
app = typer.Typer(
    cls=_Commands,
    help=HELP,
    epilog="Run 'yolopool COMMAND --help' for the options of a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models.app, name="models")
app.add_typer(cli_fleet.workers_app, name="workers")
app.command("changeover")(cli_fleet.changeover)
app.add_typer(cli_fleet.schedules_app, name="schedules")
app.add_typer(explain.explain_app, name="explain")
app.command("bench")(bench.bench)
app.command("events")(explain.events)
models.app.command("plan")(explain.plan)


def main() -> None:
    """Runs the command line; an error is one readable line and an exit code."""
    try:
        app()
    except YolopoolError as error:
        print_error(f"{error.reason}: {_said(error)}")
        sys.exit(EXIT_CODES.get(error.code, 1))
    except OSError as error:
        where = f"{error.filename}: {error.strerror}: check the path and its permissions"
        print_error(where if error.filename else str(error))
        sys.exit(1)
    except local_pool.StartFailed as error:
        print_error(str(error))
        sys.exit(1)


def _said(error: YolopoolError) -> str:
    """What is wrong, what to do about it, and which request it was."""
    said = error.message
    if error.reason == "UNAVAILABLE" and "stopping" not in said:  # nobody answers there
        said += ": start a pool with 'yolopool up', or give the address of one with --address"
    request_id = error.details.get("request_id")
    return f"{said} (request {request_id})" if request_id else said


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version of this installation and exit.",
        ),
    ] = False,
) -> None:
    """Options that come before the command; the help is HELP."""


# --- detection --------------------------------------------------------------------------------


@app.command()
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
    answers = []
    with Client(address) as client:
        for image in images:
            found = client.detect(image, model, **options)
            answers.append((image, found))
            if save is not None:
                _save(found, save / image.name if save.is_dir() or len(images) > 1 else save)
    if as_json:
        print_json([{"path": str(image), **found.to_dict()} for image, found in answers])
        return
    for image, found in answers:
        out.print(result_tables.results(found, image.name))
        out.print()
    out.print(result_tables.timing([(image.name, found) for image, found in answers]))


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


def _save(found: Detections, path: Path) -> None:
    try:
        found.save(path)
    except ValueError as error:
        raise InvalidOption(f"{path} can't be written ({error}): use .jpg or .png") from error


# --- the pool ---------------------------------------------------------------------------------


@app.command()
def status(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show the pool's totals: models, workers, memory, requests."""
    with Client(address) as client:
        fleet = client.fleet()
    print_json(plain(fleet)) if as_json else out.print(tables.fleet(fleet))


@app.command()
def version() -> None:
    """Print the version of this installation."""
    out.print(yolopool.__version__, highlight=False)


# --- servers ----------------------------------------------------------------------------------

Port = Annotated[int, typer.Option("--port", help="Port for gRPC; 0: any free one.")]
HttpPort = Annotated[
    int, typer.Option("--http-port", help="Port for /metrics and health; 0: any free one.")
]
Devices = Annotated[
    str,
    typer.Option(help="Devices to use: auto, cpu, cpu:2x8, cuda, cuda:GPU-<uuid>,... or sim:N."),
]
Budget = Annotated[
    str,
    typer.Option(help="Memory for models on each device: bytes, 4GiB, or a fraction such as 0.8."),
]
Redis = Annotated[
    str, typer.Option(help="URL of your own Redis; by default an embedded one is started.")
]


@app.command("up")
def up_command(
    data_dir: Annotated[
        Path, typer.Option(help="Folder for everything that the pool stores.")
    ] = Path("~/.yolopool"),
    host: Annotated[str, typer.Option(help="Network address to listen on.")] = "127.0.0.1",
    port: Port = 50051,
    http_port: HttpPort = 8080,
    redis: Redis = "",
    devices: Devices = "auto",
    memory_budget: Budget = "",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", help="Load and pin this model at the start; repeatable."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Register the demo model and try it.")
    ] = True,
) -> None:
    """Start a whole pool on this machine; Ctrl-C ends it."""
    options = local_pool.PoolOptions(
        data_dir.expanduser().absolute(),
        host,
        port,
        http_port,
        redis,
        devices,
        memory_budget,
        tuple(load or ()),
    )
    local_pool.refuse_busy(options)
    say(f"starting in {options.data_dir}")
    with local_pool.LocalPool(options, say) as pool:
        if demo:
            _first_detection(pool.address)
        # Before READY is printed: whoever reads it may stop the pool at once.
        stopping = local_pool.on_signals(pool)
        out.print(f"[bold green]READY[/] gRPC {pool.address}  HTTP http://{pool.http}/metrics")
        out.print(
            f"try: yolopool detect IMAGE --model {demo_files.MAIN} --address {pool.address}\n"
            "Ctrl-C ends it",
            highlight=False,
            soft_wrap=True,
        )
        pool.watch(stopping)
        say("stopping")


@app.command("demo")
def demo_command(
    save: Annotated[
        Path, typer.Option(help="File for the first image with the results drawn.")
    ] = Path("yolopool-demo.jpg"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for the pool's files; default: a temporary one.")
    ] = None,
    devices: Devices = "auto",
    memory_budget: Budget = "",
) -> None:
    """Start a pool, detect on the sample images, and end it."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        options = local_pool.PoolOptions(
            (data_dir or Path(scratch)).expanduser().absolute(),
            port=0,
            http_port=0,
            devices=devices,
            memory_budget=memory_budget,
        )
        say("starting a pool")
        with local_pool.LocalPool(options, say) as pool, Client(pool.address) as client:
            answers = demo_files.run(client, say)
    for image, found in answers[:1]:
        out.print(result_tables.results(found, image.name))
        out.print()
        _save(found, save)
    out.print(result_tables.timing([(image.name, found) for image, found in answers]))
    out.print(f"annotated image: {save}", highlight=False)


def _first_detection(address: str) -> None:
    files = demo_files.find()
    with Client(address) as client:
        demo_files.register(client, demo_files.MAIN, files.models[demo_files.MAIN])
        found = client.detect(files.images[0], model=demo_files.MAIN)
    say(f"first detection: {found!r}")


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _become(module: str, extra: str, arguments: list[str]) -> None:
    """Replaces this process by the server, which reads its own flags and environment."""
    local_pool.check_extras(extra)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


@app.command("control-plane", context_settings=_PASS_ON, add_help_option=False)
def control_plane_command(context: typer.Context) -> None:
    """Run a control plane ('yolopool control-plane --help')."""
    _become("control_plane", "control-plane", context.args)


@app.command("worker", context_settings=_PASS_ON, add_help_option=False)
def worker_command(context: typer.Context) -> None:
    """Run this machine's workers ('yolopool worker --help')."""
    _become("worker", "worker", context.args)


@app.command("importer", context_settings=_PASS_ON, add_help_option=False)
def importer_command(context: typer.Context) -> None:
    """Run an importer ('yolopool importer --help')."""
    _become("importer", "worker", context.args)

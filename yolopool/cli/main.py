"""The command line: every command is one or two calls of the client and one table.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not in this state.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, cast

import typer

import yolopool
from yolopool.cli import bench, explain, models, result_tables, tables
from yolopool.cli import fleet as cli_fleet
from yolopool.cli.console import (
    DEFAULT_ADDRESS,
    EXIT_CODES,
    Address,
    AsJson,
    out,
    plain,
    print_error,
    print_json,
    say,
)
from yolopool.client.client import Client
from yolopool.client.requests import MaskFormatName, PriorityName
from yolopool.errors import YolopoolError
from yolopool.local import demo as demo_files
from yolopool.local import pool as up

HELP = """yolopool: many YOLO models from few GPUs.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not in this state.
"""
app = typer.Typer(
    help=HELP,
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
        request_id = error.details.get("request_id")
        which = f" (request {request_id})" if request_id else ""
        print_error(f"{error.reason}: {error.message}{which}")
        sys.exit(EXIT_CODES.get(error.code, 1))
    except (OSError, up.StartFailed) as error:
        print_error(str(error))
        sys.exit(1)


# --- the data path ----------------------------------------------------------------------------


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP, BMP or TIFF files")],
    model: Annotated[str, typer.Option("--model", "-m", help="name, team/name or name@version")],
    confidence: Annotated[
        float | None, typer.Option("--conf", help="least confidence, 0..1")
    ] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="NMS overlap, 0..1")] = None,
    max_detections: Annotated[int | None, typer.Option("--max-det", help="at most so many")] = None,
    classes: Annotated[list[int] | None, typer.Option("--class", help="only this class id")] = None,
    masks: Annotated[str | None, typer.Option("--masks", help="none, polygon or rle")] = None,
    top_k: Annotated[int | None, typer.Option("--top", help="classes of a classification")] = None,
    image_size: Annotated[
        int | None, typer.Option("--imgsz", help="longest side, one that the version allows")
    ] = None,
    tile_size: Annotated[
        int | None, typer.Option("--tile", help="cut into tiles of so many pixels; 0: model's size")
    ] = None,
    tile_overlap: Annotated[
        float | None, typer.Option("--overlap", help="of neighbouring tiles, 0..0.9")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="annotated picture, or folder")
    ] = None,
    priority: Annotated[
        str, typer.Option("--priority", help="interactive, normal or bulk")
    ] = "normal",
    timeout_s: Annotated[float, typer.Option("--timeout", help="deadline of each, seconds")] = 30.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Detect objects on images, or classify them: what the model was made for."""
    answers = []
    with Client(address) as client:
        for image in images:
            found = client.detect(
                image,
                model=model,
                confidence=confidence,
                iou=iou,
                max_detections=max_detections,
                classes=classes or (),
                masks=cast(MaskFormatName | None, masks),
                top_k=top_k,
                image_size=image_size,
                tile_size=tile_size,
                tile_overlap=tile_overlap,
                priority=cast(PriorityName, priority),
                timeout_s=timeout_s,
            )
            answers.append((image, found))
            if save is not None:
                found.save(save / image.name if save.is_dir() or len(images) > 1 else save)
    if as_json:
        print_json([{"path": str(image), **found.to_dict()} for image, found in answers])
        return
    for image, found in answers:
        out.print(result_tables.results(found, image.name))
        out.print()
    out.print(result_tables.timing([(image.name, found) for image, found in answers]))


# --- models -----------------------------------------------------------------------------------


# --- the fleet --------------------------------------------------------------------------------


@app.command()
def status(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """The pool in numbers."""
    with Client(address) as client:
        fleet = client.fleet()
    print_json(plain(fleet)) if as_json else out.print(tables.fleet(fleet))


@app.command()
def version() -> None:
    """The release of this install."""
    out.print(yolopool.__version__, highlight=False)


# --- servers ----------------------------------------------------------------------------------

Port = Annotated[int, typer.Option("--port", help="gRPC port; 0: any free one")]
HttpPort = Annotated[int, typer.Option("--http-port", help="of /metrics and health; 0: any free")]
Devices = Annotated[
    str, typer.Option(help="auto, cpu, cpu:2x8, cuda, cuda:GPU-<uuid>,... or sim:N")
]
Budget = Annotated[str, typer.Option(help="a device: bytes, 4GiB, or a fraction such as 0.8")]
Redis = Annotated[str, typer.Option(help="URL of your own Redis; without it, an embedded one")]


@app.command("up")
def up_command(
    data_dir: Annotated[Path, typer.Option(help="what the pool keeps")] = Path("~/.yolopool"),
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Port = 50051,
    http_port: HttpPort = 8080,
    redis: Redis = "",
    devices: Devices = "auto",
    memory_budget: Budget = "",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", help="a model to load and pin at the start; may be repeated"),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="register the demo model")] = True,
) -> None:
    """Run a whole pool on this machine until Ctrl-C."""
    options = up.PoolOptions(
        data_dir.expanduser().absolute(),
        host,
        port,
        http_port,
        redis,
        devices,
        memory_budget,
        tuple(load or ()),
    )
    up.refuse_busy(options)
    say(f"starting in {options.data_dir}")
    with up.LocalPool(options, say) as pool:
        if demo:
            _first_detection(pool.address)
        # Before the word: whoever reads it may end us at once.
        stopping = up.on_signals(pool)
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
    save: Annotated[Path, typer.Option(help="annotated picture")] = Path("yolopool-demo.jpg"),
    data_dir: Annotated[Path | None, typer.Option(help="default: a temporary one")] = None,
    devices: Devices = "auto",
    memory_budget: Budget = "",
) -> None:
    """Start a pool, detect on the sample images, show where the time went, and end."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        options = up.PoolOptions(
            (data_dir or Path(scratch)).expanduser().absolute(),
            port=0,
            http_port=0,
            devices=devices,
            memory_budget=memory_budget,
        )
        say("starting a pool")
        with up.LocalPool(options, say) as pool, Client(pool.address) as client:
            answers = demo_files.run(client, say)
    for image, found in answers[:1]:
        out.print(result_tables.results(found, image.name))
        out.print()
        found.save(save)
    out.print(result_tables.timing([(image.name, found) for image, found in answers]))
    out.print(f"annotated picture: {save}", highlight=False)


def _first_detection(address: str) -> None:
    files = demo_files.find()
    with Client(address) as client:
        demo_files.register(client, demo_files.MAIN, files.models[demo_files.MAIN])
        found = client.detect(files.images[0], model=demo_files.MAIN)
    say(f"first detection: {found!r}")


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _become(module: str, extra: str, arguments: list[str]) -> None:
    """Replaces this process by the server, which reads its own flags and environment."""
    up.check_extras(extra)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


@app.command("worker", context_settings=_PASS_ON, add_help_option=False)
def worker_command(context: typer.Context) -> None:
    """Run the workers of this machine (flags: yolopool worker --help)."""
    _become("worker", "worker", context.args)


@app.command("control-plane", context_settings=_PASS_ON, add_help_option=False)
def control_plane_command(context: typer.Context) -> None:
    """Run a control plane (flags: yolopool control-plane --help)."""
    _become("control_plane", "control-plane", context.args)


@app.command("importer", context_settings=_PASS_ON, add_help_option=False)
def importer_command(context: typer.Context) -> None:
    """Run an importer (flags: yolopool importer --help)."""
    _become("importer", "worker", context.args)

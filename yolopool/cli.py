"""The command line: every command is one or two calls of the client and one table.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not in this state.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

import yolopool
from yolopool import demo as demo_files
from yolopool import tables, up, why
from yolopool.client import Client
from yolopool.console import (
    DEFAULT_ADDRESS,
    Address,
    AsJson,
    ModelRef,
    err,
    out,
)
from yolopool.console import plain as _plain
from yolopool.console import print_error as _print_error
from yolopool.console import print_json as _print_json
from yolopool.console import say as _say
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.records import ModelVersion, Placement

EXIT_CODES = {
    "NOT_FOUND": 3,
    "INVALID_ARGUMENT": 4,
    "DATA_LOSS": 4,
    "UNAVAILABLE": 5,
    "DEADLINE_EXCEEDED": 6,
    "RESOURCE_EXHAUSTED": 7,
    "FAILED_PRECONDITION": 8,
}
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
models_app = typer.Typer(help="The registry of models.", no_args_is_help=True)
schedules_app = typer.Typer(help="Changes of models by the clock.", no_args_is_help=True)
workers_app = typer.Typer(help="The workers of the pool.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(workers_app, name="workers")
app.add_typer(why.explain_app, name="explain")
app.command("events")(why.events)
models_app.command("plan")(why.plan)
app.add_typer(schedules_app, name="schedules")

Prepare = Annotated[
    list[str] | None, typer.Option("--load", help="a model to load; may be repeated")
]
Leave = Annotated[
    list[str] | None, typer.Option("--release", help="a model to release; may be repeated")
]
Pool = Annotated[
    str | None, typer.Option("--pool", help="only on workers of this pool (label pool)")
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", help="only on workers that have it, name=value; may be repeated"),
]
MaxReplicas = Annotated[
    int | None, typer.Option("--max-replicas", help="most copies that queues may ask for; 0: any")
]
PriorityWord = Annotated[str | None, typer.Option("--priority", help="interactive, normal or bulk")]
Replicas = Annotated[int, typer.Option(help="of each on so many workers", min=1)]
Pin = Annotated[bool, typer.Option("--pin", help="never released to make room")]


def main() -> None:
    """Runs the command line; an error is one readable line and an exit code."""
    try:
        app()
    except YolopoolError as error:
        _print_error(f"{error.reason}: {error.message}")
        sys.exit(EXIT_CODES.get(error.code, 1))
    except (OSError, up.StartFailed) as error:
        _print_error(str(error))
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
    save: Annotated[
        Path | None, typer.Option("--save", help="annotated picture, or folder")
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="deadline of each, seconds")] = 30.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Detect objects on images."""
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
                timeout_s=timeout_s,
            )
            answers.append((image, found))
            if save is not None:
                found.save(save / image.name if save.is_dir() or len(images) > 1 else save)
    if as_json:
        _print_json([{"path": str(image), **found.to_dict()} for image, found in answers])
        return
    for image, found in answers:
        out.print(tables.boxes(found, image.name))
        out.print()
    out.print(tables.timing([(image.name, found) for image, found in answers]))


# --- models -----------------------------------------------------------------------------------


@models_app.command("list")
def models_list(
    prefix: Annotated[str, typer.Argument(help="only names that begin so")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Models, their versions, and who holds them (* is what the bare name means)."""
    with Client(address) as client:
        known = client.models(prefix)
    if as_json:
        _print_json([_plain(model) for model in known])
    else:
        out.print(tables.models(known))


@models_app.command("show")
def models_show(
    model: ModelRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """All that is known of a model."""
    with Client(address) as client:
        known = client.model(model)
    if as_json:
        _print_json(_plain(known))
        return
    for version in known.versions:
        out.print(tables.version(version))


@models_app.command("register")
def models_register(
    name: Annotated[str, typer.Argument(help="name or team/name")],
    path: Annotated[Path, typer.Argument(help="model file (.pt)")],
    image_size: Annotated[int | None, typer.Option("--imgsz", help="longest side, pixels")] = None,
    confidence: Annotated[float | None, typer.Option("--conf", help="default 0.25")] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="default 0.7")] = None,
    max_detections: Annotated[int | None, typer.Option("--max-det", help="default 300")] = None,
    shape_policy: Annotated[str | None, typer.Option(help="rect (default) or square")] = None,
    head_mode: Annotated[
        str | None, typer.Option("--head", help="one-to-many (default) or end-to-end")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option("--arch", help="YAML of the architecture, of a file of weights")
    ] = None,
    class_names: Annotated[
        str, typer.Option("--names", help="its classes, comma separated: circle,square")
    ] = "",
    wait: Annotated[bool, typer.Option(help="until the import has ended")] = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Upload a model file and make it the next version of a name."""
    with Client(address) as client, _progress_bar(quiet=as_json) as progress:
        version = client.register(
            name,
            path,
            image_size=image_size,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            shape_policy=shape_policy,  # type: ignore[arg-type] # checked by the client
            head_mode=head_mode,  # type: ignore[arg-type] # checked by the client
            architecture=architecture,
            class_names=[name.strip() for name in class_names.split(",") if name.strip()],
            wait=wait,
            progress=progress,
        )
    if as_json:
        _print_json(_plain(version))
    elif version.state != "FAILED":
        out.print(tables.version(version))
    if version.state == "FAILED":
        _print_error(f"{version.name} FAILED: {version.reason}: {version.message}")
        raise typer.Exit(EXIT_CODES["INVALID_ARGUMENT"])


@models_app.command("load")
def models_load(
    model: ModelRef,
    replicas: Annotated[int, typer.Option(help="on so many workers", min=1)] = 1,
    pin: Annotated[bool, typer.Option(help="never released to make room")] = False,
    pool: Pool = None,
    label: Label = None,
    max_replicas: MaxReplicas = None,
    priority: PriorityWord = None,
    wait: Annotated[bool, typer.Option(help="until it is loaded")] = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Load a model ahead of its first request; where it may run is set first, if it is given."""
    with Client(address) as client:
        where = None
        if (pool, label, max_replicas, priority) != (None, None, None, None):
            where = _placement(client, model, pool, label, max_replicas, priority)
        version = client.load(model, replicas=replicas, pin=pin, placement=where, wait=wait)
    _print_json(_plain(version)) if as_json else out.print(tables.version(version))


@models_app.command("unload")
def models_unload(
    model: ModelRef,
    wait: Annotated[bool, typer.Option(help="until its memory is given back")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="refuse its open requests instead of waiting for them")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Release a model everywhere; the next request loads it again."""
    with Client(address) as client:
        version = client.unload(model, wait=wait, force=force)
    _print_json(_plain(version)) if as_json else out.print(tables.version(version))


@models_app.command("residency")
def models_residency(
    model: ModelRef,
    mode: Annotated[
        str | None, typer.Option("--mode", help="normal, hot-standby or on-demand")
    ] = None,
    idle_s: Annotated[
        float | None, typer.Option("--idle-s", help="of on-demand: released when idle so long")
    ] = None,
    cpu_fallback: Annotated[
        bool | None, typer.Option(help="on a CPU where every accelerator failed to load it")
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Say how a model is kept once it is loaded; what is not given stays as it is."""
    with Client(address) as client:
        now = _known(client, model).residency
        version = client.set_residency(
            model,
            mode or now.mode,  # type: ignore[arg-type] # checked by the client
            idle_release_s=now.idle_release_s if idle_s is None else idle_s,
            cpu_fallback=now.cpu_fallback if cpu_fallback is None else cpu_fallback,
        )
    _print_json(_plain(version)) if as_json else out.print(tables.version(version))


@models_app.command("placement")
def models_placement(
    model: ModelRef,
    pool: Pool = None,
    label: Label = None,
    max_replicas: MaxReplicas = None,
    priority: PriorityWord = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Say where a model may run; what is not given stays as it is."""
    with Client(address) as client:
        where = _placement(client, model, pool, label, max_replicas, priority)
        version = client.set_placement(model, where)
    _print_json(_plain(version)) if as_json else out.print(tables.version(version))


def _placement(
    client: Client,
    model: str,
    pool: str | None,
    labels: list[str] | None,
    max_replicas: int | None,
    priority: str | None,
) -> Placement:
    """The placement of a version with what is given in the place of what is known."""
    now = _known(client, model).placement
    pairs = [label.partition("=") for label in labels or ()]
    if not all(name and sign for name, sign, _ in pairs):
        raise InvalidOption("--label takes name=value")
    return Placement(
        now.pool if pool is None else pool,
        now.labels if labels is None else {name: value for name, _, value in pairs},
        now.max_replicas if max_replicas is None else max_replicas,
        priority or now.priority,
    )


def _known(client: Client, model: str) -> ModelVersion:
    """The version that a reference means now."""
    known = client.model(model)
    number = known.default_version or known.versions[0].number
    return next(one for one in known.versions if "@" in model or one.number == number)


@models_app.command("delete")
def models_delete(
    model: ModelRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """Forget a model, or one version of it."""
    with Client(address) as client:
        deleted = client.delete(model)
    _print_json(list(deleted)) if as_json else out.print("deleted " + ", ".join(deleted))


@app.command("changeover")
def changeover_command(
    load: Prepare = None,
    release: Leave = None,
    replicas: Replicas = 1,
    pin: Pin = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="deadline, seconds")] = 120.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Load some models, and release others once all of those are loaded: all or nothing."""
    with Client(address) as client:
        done = client.changeover(
            load or (), release or (), replicas=replicas, pin=pin, timeout_s=timeout_s
        )
    _print_json(_plain(done)) if as_json else out.print(tables.changeover(done))


# --- schedules --------------------------------------------------------------------------------


@schedules_app.command("list")
def schedules_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Schedules, the next time of each in its own zone, and how the last one went."""
    with Client(address) as client:
        known = client.schedules()
    _print_json([_plain(one) for one in known]) if as_json else out.print(tables.schedules(known))


@schedules_app.command("set")
def schedules_set(
    name: Annotated[str, typer.Argument(help="a new one, or one to replace")],
    cron: Annotated[str, typer.Option("--cron", help="minute hour day-of-month month day-of-week")],
    time_zone: Annotated[
        str, typer.Option("--time-zone", help="such as Europe/Berlin; without it, UTC")
    ] = "",
    lead_s: Annotated[
        float, typer.Option("--lead", help="loads begin so many seconds before")
    ] = 0.0,
    load: Prepare = None,
    release: Leave = None,
    replicas: Replicas = 1,
    pin: Pin = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Load some models and release others at each moment of a cron line."""
    with Client(address) as client:
        made = client.set_schedule(
            name,
            cron,
            load or (),
            release or (),
            time_zone=time_zone,
            lead_s=lead_s,
            replicas=replicas,
            pin=pin,
        )
    _print_json(_plain(made)) if as_json else out.print(tables.schedules([made]))


@schedules_app.command("delete")
def schedules_delete(
    name: Annotated[str, typer.Argument()], address: Address = DEFAULT_ADDRESS
) -> None:
    """Forget a schedule; what it loaded stays."""
    with Client(address) as client:
        client.delete_schedule(name)
    out.print(f"deleted {name}", highlight=False)


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[Any]:
    """A callable that takes (step, fraction)."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
    )
    with Progress(*columns, console=err, disable=quiet) as bar:
        task = bar.add_task("read", total=1.0)
        yield lambda step, fraction: bar.update(task, description=step, completed=fraction)


# --- the fleet --------------------------------------------------------------------------------


@workers_app.command("list")
def workers_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Workers with their memory ledgers and what they hold."""
    with Client(address) as client:
        known = client.workers()
    _print_json([_plain(worker) for worker in known]) if as_json else out.print(
        tables.workers(known)
    )


@workers_app.command("drain")
def workers_drain(
    worker: Annotated[str, typer.Argument(metavar="ID", help="as `workers list` has it")],
    wait: Annotated[bool, typer.Option(help="until it has left")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="of the wait, seconds")] = 600.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Take a worker out: its models are loaded elsewhere, it answers what it has, and ends."""
    with Client(address) as client:
        left = client.drain_worker(worker, wait=wait, timeout_s=timeout_s)
    if as_json:
        _print_json({"worker": worker, "not_moved": list(left)})
        return
    out.print(f"{worker} {'has left' if wait else 'is draining'}", highlight=False)
    if left:
        _print_error(f"nobody else had room for {', '.join(left)}: add a worker, or unload others")


@app.command()
def status(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """The pool in numbers."""
    with Client(address) as client:
        fleet = client.fleet()
    _print_json(_plain(fleet)) if as_json else out.print(tables.fleet(fleet))


@app.command()
def version() -> None:
    """The release of this install."""
    out.print(yolopool.__version__, highlight=False)


# --- servers ----------------------------------------------------------------------------------

Port = Annotated[int, typer.Option("--port", help="gRPC port; 0: any free one")]
HttpPort = Annotated[int, typer.Option("--http-port", help="of /metrics and health; 0: any free")]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:GPU-<uuid>,... or sim:N")]
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
    _say(f"starting in {options.data_dir}")
    with up.RunningPool(options, _say) as pool:
        if demo:
            _first_detection(pool.address)
        out.print(f"[bold green]READY[/] gRPC {pool.address}  HTTP http://{pool.http}/metrics")
        out.print(
            f"try: yolopool detect IMAGE --model {demo_files.MAIN} --address {pool.address}\n"
            "Ctrl-C ends it",
            highlight=False,
            soft_wrap=True,
        )
        up.wait_until_stopped(pool)
        _say("stopping")


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
        _say("starting a pool")
        with up.RunningPool(options, _say) as pool, Client(pool.address) as client:
            answers = demo_files.run(client, _say)
    for image, found in answers[:1]:
        out.print(tables.boxes(found, image.name))
        out.print()
        found.save(save)
    out.print(tables.timing([(image.name, found) for image, found in answers]))
    out.print(f"annotated picture: {save}", highlight=False)


def _first_detection(address: str) -> None:
    files = demo_files.find()
    with Client(address) as client:
        demo_files.register(client, demo_files.MAIN, files.models[demo_files.MAIN])
        found = client.detect(files.images[0], model=demo_files.MAIN)
    _say(f"first detection: {found!r}")


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

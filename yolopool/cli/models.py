"""`yolopool models`: the registry, what is loaded, and how and where."""

from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli import builds, tables
from yolopool.cli.console import (
    DEFAULT_ADDRESS,
    EXIT_CODES,
    Address,
    AsJson,
    ModelRef,
    out,
    plain,
    print_error,
    print_json,
    progress_bar,
)
from yolopool.client.client import Client
from yolopool.client.model_records import Batching, ModelVersion, Placement
from yolopool.errors import InvalidOption

app = typer.Typer(help="The registry of models.", no_args_is_help=True)
app.command("build")(builds.build)
app.command("variant")(builds.variant)

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


@app.command("list")
def models_list(
    prefix: Annotated[str, typer.Argument(help="only names that begin so")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Models, their versions, and who holds them (* is what the bare name means)."""
    with Client(address) as client:
        known = client.models(prefix)
    if as_json:
        print_json([plain(model) for model in known])
    else:
        out.print(tables.models(known))


@app.command("show")
def models_show(
    model: ModelRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """All that is known of a model."""
    with Client(address) as client:
        known = client.model(model)
    if as_json:
        print_json(plain(known))
        return
    for version in known.versions:
        out.print(tables.version(version))


@app.command("register")
def models_register(
    name: Annotated[str, typer.Argument(help="name or team/name")],
    path: Annotated[Path, typer.Argument(help="model file (.pt, .onnx)")],
    image_size: Annotated[int | None, typer.Option("--imgsz", help="longest side, pixels")] = None,
    image_sizes: Annotated[
        list[int] | None, typer.Option("--also-imgsz", help="one that requests may ask for too")
    ] = None,
    confidence: Annotated[float | None, typer.Option("--conf", help="default 0.25")] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="default 0.7")] = None,
    max_detections: Annotated[int | None, typer.Option("--max-det", help="default 300")] = None,
    shape_policy: Annotated[str | None, typer.Option(help="rect (default) or square")] = None,
    head_mode: Annotated[
        str | None, typer.Option("--head", help="one-to-many (default) or end-to-end")
    ] = None,
    output_layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="of an .onnx that does not tell: objectness, plain, end-to-end or pair",
        ),
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
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        version = client.register(
            name,
            path,
            image_size=image_size,
            image_sizes=image_sizes or (),
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            shape_policy=shape_policy,  # type: ignore[arg-type] # checked by the client
            head_mode=head_mode,  # type: ignore[arg-type] # checked by the client
            output_layout=output_layout,  # type: ignore[arg-type] # checked by the client
            architecture=architecture,
            class_names=[name.strip() for name in class_names.split(",") if name.strip()],
            wait=wait,
            progress=progress,
        )
    if as_json:
        print_json(plain(version))
    elif version.state != "FAILED":
        out.print(tables.version(version))
    if version.state == "FAILED":
        print_error(f"{version.name} FAILED: {version.reason}: {version.message}")
        raise typer.Exit(EXIT_CODES["INVALID_ARGUMENT"])


@app.command("load")
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
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("unload")
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
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("residency")
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
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("placement")
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
    print_json(plain(version)) if as_json else out.print(tables.version(version))


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


@app.command("batching")
def models_batching(
    model: ModelRef,
    device: Annotated[str, typer.Option("--device", help="kind of device: cpu, cuda or sim")],
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="images a pass at most; 0: the worker's own")
    ] = None,
    prefer: Annotated[
        str | None, typer.Option("--prefer", help="sizes a batch is cut to: 4,8; empty: any")
    ] = None,
    max_delay_ms: Annotated[
        float | None, typer.Option("--max-delay-ms", help="a batch may wait so long to fill")
    ] = None,
    queue: Annotated[
        int | None, typer.Option("--queue", help="most that wait at a worker; 0: its bound alone")
    ] = None,
    fixed: Annotated[
        bool | None, typer.Option(help="exactly --max-batch, filled up with grey images")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="back to the workers' own")] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Say how a model is batched on a kind of device; what is not given stays as it is."""
    given = (max_batch, prefer, max_delay_ms, queue, fixed)
    if reset == any(one is not None for one in given):
        raise InvalidOption("give what is to change, or --reset alone")
    with Client(address) as client:
        now = _known(client, model).batching.get(device, Batching())
        asked = Batching(
            now.max_batch if max_batch is None else max_batch,
            now.preferred_sizes if prefer is None else _sizes(prefer),
            now.max_delay_ms if max_delay_ms is None else max_delay_ms,
            now.queue_capacity if queue is None else queue,
            now.fixed if fixed is None else fixed,
        )
        version = client.set_batching(model, device, None if reset else asked)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidOption(f"--prefer takes sizes as 4,8, not {text!r}") from error


def _known(client: Client, model: str) -> ModelVersion:
    """The version that a reference means now."""
    known = client.model(model)
    number = known.default_version or known.versions[0].number
    return next(one for one in known.versions if "@" in model or one.number == number)


@app.command("delete")
def models_delete(
    model: ModelRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """Forget a model, or one version of it."""
    with Client(address) as client:
        deleted = client.delete(model)
    print_json(list(deleted)) if as_json else out.print("deleted " + ", ".join(deleted))

"""`yolopool models`: registers models, loads them, and sets how and where they run."""

import sys
from typing import Annotated

import typer

from yolopool.cli import tables
from yolopool.cli.console import (
    Address,
    AsJson,
    Later,
    ModelRef,
    SectionedGroup,
    out,
    plain,
    print_json,
)
from yolopool.client.client import Client
from yolopool.client.model_records import Batching, Model, ModelVersion, Placement
from yolopool.errors import InvalidOption
from yolopool.labels import parse_changes
from yolopool.transport import DEFAULT_ADDRESS


class _Commands(SectionedGroup):
    sections = {  # noqa: RUF012 - typed in the base class
        "Registry": ["list", "show", "register", "label", "delete"],
        "Aliases": ["promote", "rollback", "alias", "aliases", "unalias", "compare", "family"],
        "Loading": ["load", "plan", "unload", "residency", "placement"],
        "Speed": ["batching", "build", "variant"],
        "Accuracy": ["evaluate", "gate"],
    }
    later = {  # noqa: RUF012
        "register": Later(
            "yolopool.cli.register.registering:models_register",
            "Upload a model file, or have the pool fetch one.",
        ),
        "build": Later(
            "yolopool.cli.builds:build", "Build a model for another backend or precision."
        ),
        "variant": Later("yolopool.cli.builds:variant", "Choose which build of a model serves it."),
        "evaluate": Later(
            "yolopool.cli.validation.evaluate:evaluate",
            "Measure how good a model is on labelled images.",
        ),
        "gate": Later(
            "yolopool.cli.validation.gates:gates_app",
            "Ask new versions for a least accuracy on labelled images.",
        ),
        "promote": Later(
            "yolopool.cli.rollout.aliases:promote", "Move an alias to a version without a gap."
        ),
        "rollback": Later(
            "yolopool.cli.rollout.aliases:rollback", "Move an alias back to what it meant before."
        ),
        "alias": Later(
            "yolopool.cli.rollout.aliases:set_",
            "Show an alias and its history, or set what it means.",
        ),
        "aliases": Later("yolopool.cli.rollout.aliases:list_", "List aliases and what they mean."),
        "unalias": Later(
            "yolopool.cli.rollout.aliases:unalias", "Delete an alias; its versions stay."
        ),
        "compare": Later(
            "yolopool.cli.rollout.rollouts:compare",
            "Compare what two versions find on the same images.",
        ),
        "family": Later(
            "yolopool.cli.rollout.families:family",
            "Show a family, or make one of several models.",
        ),
        "plan": Later(
            "yolopool.cli.explain:plan", "Show what loading a model would do, without doing it."
        ),
    }


app = typer.Typer(cls=_Commands, help="Register, load and configure models.", no_args_is_help=True)

Pool = Annotated[
    str | None, typer.Option("--pool", help="Run only on workers of this pool (label pool).")
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", help="Run only on workers with this label, NAME=VALUE; repeatable."),
]
MaxReplicas = Annotated[
    int | None,
    typer.Option("--max-replicas", help="Most replicas that autoscaling may add; 0: no limit."),
]
PriorityWord = Annotated[
    str | None, typer.Option("--priority", help="Priority: interactive, normal or bulk.")
]


@app.command("list")
def models_list(
    prefix: Annotated[str, typer.Argument(help="Only models whose name begins with this.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="Only with this label: NAME=VALUE, NAME!=VALUE, NAME or !NAME; repeatable.",
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option("--task", help="Only this task: detect, segment, classify, pose or obb."),
    ] = "",
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only versions that know this class; repeatable."),
    ] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", help="Only versions trained on this data (coco8.yaml).")
    ] = "",
    artifact: Annotated[
        str,
        typer.Option("--artifact", help="Only versions of the file of this SHA-256 (its start)."),
    ] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List models, their versions and where they are loaded.

    * marks the version that the name alone refers to. With options only versions that meet all of
    them are listed.
    """
    with Client(address) as client:
        known = client.models(
            prefix,
            labels=",".join(label or ()),
            task=task,
            classes=classes or (),
            dataset=dataset,
            artifact=artifact,
        )
    if as_json:
        print_json([plain(model) for model in known])
    else:
        out.print(tables.models(known))


@app.command("show")
def models_show(
    model: ModelRef,
    text: Annotated[
        str,
        typer.Option("--text", help="Print this text of its metadata, such as args.yaml, alone."),
    ] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show everything about a model."""
    with Client(address) as client:
        known = client.model(model)
    if text:
        _print_text(_newest_with(known, text).metadata[text])
        return
    if as_json:
        print_json(plain(known))
        return
    for version in known.versions:
        out.print(tables.version(version))


def _newest_with(known: Model, text: str) -> ModelVersion:
    """The newest version that has this text."""
    for version in known.versions:
        if text in version.metadata:
            return version
    held = sorted({name for version in known.versions for name in version.metadata})
    raise InvalidOption(
        f"{known.name} has no text {text!r}: it has {', '.join(held) if held else 'none'}"
    )


def _print_text(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


@app.command("label")
def models_label(
    model: ModelRef,
    changes: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE|NAME-", help="Labels to set, and (NAME-) to drop."),
    ],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set labels of a version, or drop them: line=7 old-"""
    put, drop = parse_changes(changes)
    with Client(address) as client:
        version = client.set_labels(model, put, drop)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("load")
def models_load(
    model: ModelRef,
    replicas: Annotated[int, typer.Option(help="Number of workers to load it on.", min=1)] = 1,
    pin: Annotated[
        bool, typer.Option(help="Keep it loaded: never evict it for another model.")
    ] = False,
    pool: Pool = None,
    label: Label = None,
    max_replicas: MaxReplicas = None,
    priority: PriorityWord = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is loaded.")] = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Load a model before its first request.

    With --pool, --label, --max-replicas or --priority its placement is changed first.
    """
    with Client(address) as client:
        where = None
        if (pool, label, max_replicas, priority) != (None, None, None, None):
            where = _placement(client, model, pool, label, max_replicas, priority)
        version = client.load(model, replicas=replicas, pin=pin, placement=where, wait=wait)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("unload")
def models_unload(
    model: ModelRef,
    wait: Annotated[bool, typer.Option(help="Wait until its memory is free.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Fail its open requests instead of waiting for them.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Unload a model everywhere; the next request loads it."""
    with Client(address) as client:
        version = client.unload(model, wait=wait, force=force)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


@app.command("residency")
def models_residency(
    model: ModelRef,
    mode: Annotated[
        str | None,
        typer.Option("--mode", help="normal, hot-standby (loaded and pinned) or on-demand."),
    ] = None,
    idle_s: Annotated[
        float | None,
        typer.Option("--idle-s", help="With on-demand: unload after so many idle seconds."),
    ] = None,
    cpu_fallback: Annotated[
        bool | None, typer.Option(help="Serve it on a CPU if every accelerator failed to load it.")
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set how long a model stays loaded.

    Options that are not given keep their value.
    """
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
    """Set on which workers a model may run.

    Options that are not given keep their value.
    """
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
    """The version's placement, with the given options changed."""
    now = _known(client, model).placement
    pairs = [label.partition("=") for label in labels or ()]
    if not all(name and sign for name, sign, _ in pairs):
        raise InvalidOption("--label takes NAME=VALUE, such as --label site=berlin")
    return Placement(
        now.pool if pool is None else pool,
        now.labels if labels is None else {name: value for name, _, value in pairs},
        now.max_replicas if max_replicas is None else max_replicas,
        priority or now.priority,
    )


@app.command("batching")
def models_batching(
    model: ModelRef,
    device: Annotated[str, typer.Option("--device", help="Kind of device: cpu, cuda or sim.")],
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Most images in a pass; 0: as the worker was started."),
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option("--prefer", help="Preferred batch sizes, such as 4,8; empty: any size."),
    ] = None,
    max_delay_ms: Annotated[
        float | None,
        typer.Option("--max-delay-ms", help="Longest wait for a batch to fill, in ms."),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option("--queue", help="Most requests queued at a worker; 0: its own limit."),
    ] = None,
    fixed: Annotated[
        bool | None, typer.Option(help="Run exactly --max-batch images, padded with grey ones.")
    ] = None,
    p99_ms: Annotated[
        float | None,
        typer.Option("--p99-ms", help="Adapt batch and delay to this p99, in ms; 0: do not."),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Return to the workers' own settings.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set how a model's images are batched on a device.

    Options that are not given keep their value.
    """
    given = (max_batch, prefer, max_delay_ms, queue, fixed, p99_ms)
    if reset == any(value is not None for value in given):
        raise InvalidOption("give the options to change, or --reset alone")
    with Client(address) as client:
        now = _known(client, model).batching.get(device, Batching())
        asked = Batching(
            now.max_batch if max_batch is None else max_batch,
            now.preferred_sizes if prefer is None else _sizes(prefer),
            now.max_delay_ms if max_delay_ms is None else max_delay_ms,
            now.queue_capacity if queue is None else queue,
            now.fixed if fixed is None else fixed,
            now.p99_goal_ms if p99_ms is None else p99_ms,
        )
        version = client.set_batching(model, device, None if reset else asked)
    print_json(plain(version)) if as_json else out.print(tables.version(version))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidOption(f"--prefer {text!r}: give batch sizes, such as 4,8") from error


def _known(client: Client, model: str) -> ModelVersion:
    """The version that a reference names now."""
    known = client.model(model)
    number = known.default_version or known.versions[0].number
    return next(v for v in known.versions if "@" in model or v.number == number)


@app.command("delete")
def models_delete(
    model: ModelRef,
    force: Annotated[
        bool, typer.Option("--force", help="Though it is pinned, or schedules name it.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Delete a model, or one version of it.

    Refused while an alias, a schedule or a pin needs it; with --force only for an alias.
    """
    with Client(address) as client:
        deleted = client.delete(model, force=force)
    print_json(list(deleted)) if as_json else out.print("deleted " + ", ".join(deleted))

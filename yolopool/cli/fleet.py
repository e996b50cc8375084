"""`yolopool status`, `workers`, `changeover` and `schedules`: commands on more than one model."""

from typing import Annotated

import typer

from yolopool.cli import tables
from yolopool.cli.completion import pool_names
from yolopool.cli.console import (
    Address,
    AsJson,
    out,
    plain,
    print_error,
    print_json,
)
from yolopool.cli.schedules import schedule_tables
from yolopool.client.client import Client
from yolopool.transport import DEFAULT_ADDRESS

workers_app = typer.Typer(help="List workers, and drain one.", no_args_is_help=True)
schedules_app = typer.Typer(help="Run changeovers at set times.", no_args_is_help=True)

Prepare = Annotated[
    list[str] | None,
    typer.Option("--load", help="Load this model; repeatable.", autocompletion=pool_names.models),
]
Leave = Annotated[
    list[str] | None,
    typer.Option(
        "--release", help="Release this model; repeatable.", autocompletion=pool_names.models
    ),
]
Replicas = Annotated[int, typer.Option(help="Number of workers to load each model on.", min=1)]
Pin = Annotated[bool, typer.Option("--pin", help="Keep them loaded: never evict them for others.")]
SunPlace = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--place", help="Of the sun: latitude and longitude in degrees, such as 52.52 13.41."
    ),
]


def status(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show the pool's totals: models, workers, memory, requests."""
    with Client(address) as client:
        fleet = client.fleet()
    print_json(plain(fleet)) if as_json else out.print(tables.fleet(fleet))


def changeover(
    load: Prepare = None,
    release: Leave = None,
    replicas: Replicas = 1,
    pin: Pin = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline for the loads, in seconds.")
    ] = 120.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Load some models, then release others: all or nothing.

    Nothing is released unless every model was loaded.
    """
    with Client(address) as client:
        done = client.changeover(
            load or (), release or (), replicas=replicas, pin=pin, timeout_s=timeout_s
        )
    print_json(plain(done)) if as_json else out.print(tables.changeover(done))


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is unused.")] = False,
    grace_s: Annotated[
        float | None,
        typer.Option(
            "--grace",
            help="Remove what was not used for this many seconds; default: as the control plane "
            "is set (--sweep-grace-s, a day).",
            min=0,
        ),
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Remove stored files that no model uses.

    These are uploads and packs of deleted models, and what killed uploads and imports left. The
    control plane also does this by itself.
    """
    with Client(address) as client:
        found = client.sweep(grace_s, dry_run=dry_run)
    print_json([plain(file) for file in found]) if as_json else out.print(tables.unused(found))


# --- schedules --------------------------------------------------------------------------------


@schedules_app.command("list")
def schedules_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List schedules: the next run of each, and how the last one ended."""
    with Client(address) as client:
        known = client.schedules()
    print_json([plain(s) for s in known]) if as_json else out.print(
        schedule_tables.schedules(known)
    )


@schedules_app.command("set")
def schedules_set(
    name: Annotated[str, typer.Argument(help="Name of the schedule; an existing one is replaced.")],
    cron: Annotated[
        str, typer.Option("--cron", help="When: minute hour day-of-month month day-of-week.")
    ] = "",
    sun: Annotated[
        str,
        typer.Option(
            "--sun",
            help="Or when: dawn, sunrise, sunset or dusk at --place, with an offset such as "
            "dusk-15m or dawn+1h30m.",
        ),
    ] = "",
    place: SunPlace = None,
    time_zone: Annotated[
        str,
        typer.Option(
            "--time-zone",
            help="Time zone of --cron, and of the times that are shown, such as Europe/Berlin; "
            "default: UTC.",
        ),
    ] = "",
    lead_s: Annotated[
        float, typer.Option("--lead", help="Start loading this many seconds earlier.")
    ] = 0.0,
    load: Prepare = None,
    release: Leave = None,
    replicas: Replicas = 1,
    pin: Pin = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Create or replace a schedule: a changeover at set times."""
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
            sun=sun,
            place=place,
        )
    print_json(plain(made)) if as_json else out.print(schedule_tables.schedules([made]))


@schedules_app.command("delete")
def schedules_delete(
    name: Annotated[str, typer.Argument(help="Name of the schedule.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Delete a schedule; the models it loaded stay loaded."""
    with Client(address) as client:
        client.delete_schedule(name)
    out.print(f"deleted {name}", highlight=False)


@workers_app.command("list")
def workers_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List workers: state, memory and loaded models."""
    with Client(address) as client:
        known = client.workers()
    print_json([plain(worker) for worker in known]) if as_json else out.print(tables.workers(known))


@workers_app.command("drain")
def workers_drain(
    worker: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Id of the worker, from 'workers list'.",
            autocompletion=pool_names.workers,
        ),
    ],
    wait: Annotated[bool, typer.Option(help="Wait until it has left.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Longest wait, in seconds.")
    ] = 600.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Drain a worker: move its models, then end its process.

    It answers the requests that it has. Its supervisor then starts a fresh process.
    """
    with Client(address) as client:
        not_moved = client.drain_worker(worker, wait=wait, timeout_s=timeout_s)
    if as_json:
        print_json({"worker": worker, "not_moved": list(not_moved)})
        return
    out.print(f"{worker} {'has left' if wait else 'is draining'}", highlight=False)
    if not_moved:
        names = ", ".join(not_moved)
        print_error(f"no other worker had room for {names}: add a worker, or unload other models")

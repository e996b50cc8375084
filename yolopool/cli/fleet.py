"""`yolopool workers`, `changeover` and `schedules`: what concerns more than one model."""

from typing import Annotated

import typer

from yolopool.cli import tables
from yolopool.cli.console import (
    DEFAULT_ADDRESS,
    Address,
    AsJson,
    out,
    plain,
    print_error,
    print_json,
)
from yolopool.client.client import Client

workers_app = typer.Typer(help="The workers of the pool.", no_args_is_help=True)
schedules_app = typer.Typer(help="Changes of models by the clock.", no_args_is_help=True)

Prepare = Annotated[
    list[str] | None, typer.Option("--load", help="a model to load; may be repeated")
]
Leave = Annotated[
    list[str] | None, typer.Option("--release", help="a model to release; may be repeated")
]
Replicas = Annotated[int, typer.Option(help="of each on so many workers", min=1)]
Pin = Annotated[bool, typer.Option("--pin", help="never released to make room")]


def changeover(
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
    print_json(plain(done)) if as_json else out.print(tables.changeover(done))


# --- schedules --------------------------------------------------------------------------------


@schedules_app.command("list")
def schedules_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Schedules, the next time of each in its own zone, and how the last one went."""
    with Client(address) as client:
        known = client.schedules()
    print_json([plain(one) for one in known]) if as_json else out.print(tables.schedules(known))


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
    print_json(plain(made)) if as_json else out.print(tables.schedules([made]))


@schedules_app.command("delete")
def schedules_delete(
    name: Annotated[str, typer.Argument()], address: Address = DEFAULT_ADDRESS
) -> None:
    """Forget a schedule; what it loaded stays."""
    with Client(address) as client:
        client.delete_schedule(name)
    out.print(f"deleted {name}", highlight=False)


@workers_app.command("list")
def workers_list(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Workers with their memory ledgers and what they hold."""
    with Client(address) as client:
        known = client.workers()
    print_json([plain(worker) for worker in known]) if as_json else out.print(tables.workers(known))


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
        print_json({"worker": worker, "not_moved": list(left)})
        return
    out.print(f"{worker} {'has left' if wait else 'is draining'}", highlight=False)
    if left:
        print_error(f"nobody else had room for {', '.join(left)}: add a worker, or unload others")

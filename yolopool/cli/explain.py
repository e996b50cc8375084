"""The commands that answer a why: what happened, what a load would do, where a model is and why,
what became of a request.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import typer

from yolopool.cli import event_tables
from yolopool.cli.console import (
    DEFAULT_ADDRESS,
    Address,
    AsJson,
    ModelRef,
    out,
    plain,
    print_json,
    say,
)
from yolopool.client.client import Client
from yolopool.client.explanations import Event
from yolopool.errors import Unavailable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

explain_app = typer.Typer(help="Why it is as it is.", no_args_is_help=True)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="and those to come")] = False,
    last: Annotated[int, typer.Option(help="the newest so many; 0: all", min=0)] = 50,
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="only ASSIGNED, ...")] = None,
    model: Annotated[str, typer.Option(help="only of name or name@version")] = "",
    worker: Annotated[str, typer.Option(help="only of this worker")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """What happened to the fleet, oldest first; with --follow until Ctrl-C."""
    kinds = kinds or []
    with Client(address) as client:
        if not follow:
            _tell(client.events(last=last, kinds=kinds, model=model, worker=worker), as_json)
            return
        # At once and for sure: a KeyboardInterrupt in a destructor would be lost.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
        _tell(
            follow_events(
                client,
                last=last,
                kinds=kinds,
                model=model,
                worker=worker,
                away=lambda reason: say(f"{reason} (waiting for it)"),
            ),
            as_json,
        )


def _tell(found: Iterable[Event], as_json: bool) -> None:
    for event in found:
        if as_json:
            sys.stdout.write(json.dumps(plain(event)) + "\n")
            sys.stdout.flush()
        else:
            out.print(event_tables.event(event), soft_wrap=True)


def plan(
    model: ModelRef,
    replicas: Annotated[int, typer.Option(help="on so many workers", min=1)] = 1,
    pin: Annotated[bool, typer.Option(help="never released to make room")] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """What loading a model would do now; nothing is changed."""
    with Client(address) as client:
        steps = client.plan_load(model, replicas=replicas, pin=pin)
    if as_json:
        print_json([plain(step) for step in steps])
    else:
        out.print(event_tables.steps(steps), highlight=False, markup=False, soft_wrap=True)


@explain_app.command("model")
def explain_model(
    model: ModelRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """Where a model is and why, worker by worker."""
    with Client(address) as client:
        found = client.explain_model(model)
    if as_json:
        print_json(plain(found))
        return
    out.print(event_tables.explanation(found))
    out.print()
    out.print(event_tables.verdicts(found.workers))


@explain_app.command("request")
def explain_request(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="as the answer names it")],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """What became of a recent request; the control plane that answered it knows."""
    with Client(address) as client:
        found = client.explain_request(request_id)
    if as_json:
        print_json([plain(trace) for trace in found])
        return
    for trace in found:
        out.print(event_tables.trace(trace))


def follow_events(
    client: Client,
    *,
    last: int = 0,
    kinds: Sequence[str] = (),
    model: str = "",
    worker: str = "",
    away: Callable[[str], None],
) -> Iterator[Event]:
    """As `Client.events` with follow, and without end: after a break it goes on from the last
    event it saw. `away` hears once a break why. Raises Unavailable only if nothing answers at
    the start.
    """
    client.fleet()
    after, pause_s = "", FIRST_PAUSE_S
    while True:
        said = "the control plane stopped"
        try:
            for event in client.events(
                after=after, last=last, kinds=kinds, model=model, worker=worker, follow=True
            ):
                after, last, pause_s = event.id, 0, FIRST_PAUSE_S
                yield event
        except Unavailable as error:
            said = f"{error.reason}: {error.message}"
        if pause_s == FIRST_PAUSE_S:
            away(said)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

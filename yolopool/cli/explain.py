"""`yolopool events`, `models plan` and `explain`: what happened, what a load would do, and why a
model or a request is as it is.
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
from yolopool.client.client import Client
from yolopool.client.explanations import Event
from yolopool.errors import Unavailable
from yolopool.transport import DEFAULT_ADDRESS

MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0

explain_app = typer.Typer(
    help="Explain a model's placement, or a request's outcome.",
    no_args_is_help=True,
)


def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new events until Ctrl-C.")
    ] = False,
    last: Annotated[
        int, typer.Option(help="Number of newest events to print; 0: all.", min=0)
    ] = 50,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only events of this kind, such as ASSIGNED; repeatable."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Only events of this model: NAME or NAME@VERSION.",
            autocompletion=pool_names.models,
        ),
    ] = "",
    worker: Annotated[
        str,
        typer.Option(help="Only events of this worker.", autocompletion=pool_names.workers),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show what happened in the pool, oldest first."""
    kinds = kinds or []
    with Client(address) as client:
        if not follow:
            _print(client.events(last=last, kinds=kinds, model=model, worker=worker), as_json)
            return
        # Exits at once: a KeyboardInterrupt raised inside a destructor would be lost.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
        _print(
            follow_events(
                client,
                last=last,
                kinds=kinds,
                model=model,
                worker=worker,
                on_break=lambda reason: say(f"{reason} (reconnecting)"),
            ),
            as_json,
        )


def _print(events: Iterable[Event], as_json: bool) -> None:
    for event in events:
        if as_json:
            sys.stdout.write(json.dumps(plain(event)) + "\n")
            sys.stdout.flush()
        else:
            out.print(event_tables.event(event), soft_wrap=True)


def plan(
    model: ModelRef,
    replicas: Annotated[int, typer.Option(help="Number of workers to load it on.", min=1)] = 1,
    pin: Annotated[bool, typer.Option(help="Plan for a pinned model.")] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show what loading a model would do, without doing it."""
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
    """Show where a model is loaded and why, by worker."""
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
    request_id: Annotated[
        str,
        typer.Argument(metavar="REQUEST_ID", help="Id of the request, from its answer or error."),
    ],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show what happened to a recent request.

    Ask the control plane that answered it: others do not know.
    """
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
    on_break: Callable[[str], None],
) -> Iterator[Event]:
    """Follows events without end: after a break it resumes behind the last event it saw.

    `on_break` is called with the reason once a break. Raises Unavailable only if nothing answers at
    the start.
    """
    client.fleet()
    after, pause_s = "", MIN_PAUSE_S
    while True:
        reason = "the control plane stopped"
        try:
            for event in client.events(
                after=after, last=last, kinds=kinds, model=model, worker=worker, follow=True
            ):
                after, last, pause_s = event.id, 0, MIN_PAUSE_S
                yield event
        except Unavailable as error:
            reason = f"{error.reason}: {error.message}"
        if pause_s == MIN_PAUSE_S:
            on_break(reason)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)

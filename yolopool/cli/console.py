"""What every part of the command line shares: where it prints, and the options of every command."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

out = Console()
err = Console(stderr=True)

Address = Annotated[
    str,
    typer.Option("--address", envvar="YOLOPOOL_ADDRESS", help="host:port of a control plane"),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs")]
ModelRef = Annotated[str, typer.Argument(metavar="MODEL", help="name or name@version")]
DEFAULT_ADDRESS = "127.0.0.1:50051"

# Of the process, by the gRPC code of the error.
EXIT_CODES = {
    "NOT_FOUND": 3,
    "INVALID_ARGUMENT": 4,
    "DATA_LOSS": 4,
    "UNAVAILABLE": 5,
    "DEADLINE_EXCEEDED": 6,
    "RESOURCE_EXHAUSTED": 7,
    "FAILED_PRECONDITION": 8,
}


def print_error(text: str) -> None:
    # Not as markup: a message may have brackets.
    err.print(f"error {text}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def plain(value: Any) -> Any:
    return dataclasses.asdict(value)


def say(text: str) -> None:
    """What goes on, beside the answer."""
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Any]:
    """A callable that takes (step, fraction)."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
    )
    with Progress(*columns, console=err, disable=quiet) as bar:
        task = bar.add_task("read", total=1.0)
        yield lambda step, fraction: bar.update(task, description=step, completed=fraction)

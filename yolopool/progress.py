"""How the command line shows that something goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from yolopool.cli.console import err


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

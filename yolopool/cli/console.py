"""What all commands share: where they print, their common options, and how help is laid out."""

import dataclasses
import errno
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Annotated, Any, ClassVar, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from typer.core import TyperGroup

from yolopool.cli.completion import pool_names
from yolopool.codes import CODES
from yolopool.errors import YolopoolError

out = Console()
err = Console(stderr=True)

Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="YOLOPOOL_ADDRESS", help="Address of the pool's control plane."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelRef = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name of the model, NAME@VERSION or NAME:ALIAS.",
        autocompletion=pool_names.models,
    ),
]

# What to do about an error of the operating system.
_TODO = {
    errno.ENOSPC: "make room on this disk",
    errno.EDQUOT: "make room on this disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


# Empty: nothing any more.
_MAY_BE_EMPTY = frozenset({"--pool"})


class Later(NamedTuple):
    """A command that is imported when it is asked for: its `place`, MODULE:NAME, and what the help
    of its group says of it. passes_on: another program reads its options.
    """

    place: str
    summary: str
    passes_on: bool = False


class SectionedGroup(TyperGroup):
    """A group whose help lists its commands under headings, in the order given here. Only the
    command that runs is imported of `later`.
    """

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}
    later: ClassVar[Mapping[str, Later]] = {}

    def __init__(self, *, commands: Any = None, **attributes: Any) -> None:
        super().__init__(commands=_Commands(commands or {}, self.later), **attributes)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        _refuse_empty_values(found[1])
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self._summary(ctx, name, width)) for name in names])

    def _summary(self, ctx: Any, name: str, width: int) -> str:
        if name in self.later:
            return self.later[name].summary
        command = self.get_command(ctx, name)
        return command.get_short_help_str(width) if command is not None else ""


class _Commands(dict[str, Any]):
    """Commands by name, those of `later` imported when they are looked up."""

    def __init__(self, made: Mapping[str, Any], later: Mapping[str, Later]) -> None:
        super().__init__({**made, **later})

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, Later):
            command = self[name] = _made(name, command)
        return command

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - it would call itself

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]


def _made(name: str, later: Later) -> Any:
    module, _, attribute = later.place.partition(":")
    found = getattr(import_module(module), attribute)
    holder = typer.Typer(rich_markup_mode=None, add_completion=False)
    holder.callback()(lambda: None)  # a group, even of one command
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    elif later.passes_on:
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        holder.command(name, context_settings=settings, add_help_option=False)(found)
    else:
        holder.command(name)(found)
    group: Any = typer.main.get_command(holder)
    return group.commands[name]


def _refuse_empty_values(command: Any) -> None:
    """An option that is given with nothing, as a variable of a shell that is not set gives it, is
    an error, and not as if it were left out.
    """
    for option in command.params:
        is_option = option.param_type_name == "option" and not option.is_flag
        if is_option and not _MAY_BE_EMPTY.intersection(option.opts):
            option.process_value = partial(_not_empty, option, type(option).process_value)
    for inner in getattr(command, "commands", {}).values():
        _refuse_empty_values(inner)


def _not_empty(option: Any, process: Any, ctx: Any, value: Any) -> Any:
    given = value if isinstance(value, list | tuple) else (value,)
    source = ctx.get_parameter_source(option.name)
    if "" in given and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("is empty: give a value, or leave it out", ctx, option)
    return process(option, ctx, value)


def as_line(error: YolopoolError | OSError, about: str = "") -> str:
    """What is wrong, with what, what to do about it, and which request it was."""
    if isinstance(error, YolopoolError):
        said = ": ".join(filter(None, (error.reason, about, error.message)))
        if error.reason == "UNAVAILABLE" and "stopping" not in said:  # nobody answers there
            said += ": start a pool with 'yolopool up', or give the address of one with --address"
        request_id = error.details.get("request_id")
        return f"{said} (request {request_id})" if request_id else said
    place = error.filename or about
    if not place:
        return str(error)
    todo = _TODO.get(error.errno or 0, "check the path and its permissions")
    return f"{place}: {error.strerror or error}: {todo}"


def exit_code(error: YolopoolError | OSError) -> int:
    """The exit code of a command that ends with this error."""
    return CODES[error.code].exit_code if isinstance(error, YolopoolError) else 1


def print_error(text: str) -> None:
    """Prints one line to stderr. Not as markup: a message may have brackets."""
    err.print(f"error {text}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def plain(value: Any) -> Any:
    return dataclasses.asdict(value)


def say(text: str) -> None:
    """Prints a line about progress to stderr, so that stdout holds the answer alone."""
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def bars(*columns: ProgressColumn, quiet: bool) -> Progress:
    """Bars on stderr, on terminals only. What is printed meanwhile stands above them, and still
    goes where stdout goes.
    """
    return Progress(
        *columns,
        console=err,
        disable=quiet or not err.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Any]:
    """A bar on stderr if that is a terminal; the callable that it yields takes (step, fraction)."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
    )
    with bars(*columns, quiet=quiet) as bar:
        task = bar.add_task("read", total=1.0)
        yield lambda step, fraction: bar.update(task, description=step, completed=fraction)

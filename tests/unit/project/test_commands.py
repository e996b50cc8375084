"""The commands that pages name in their text exist, with the options that are named beside them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from tests.page_blocks import PAGES, ROOT
from yolopool.cli.main import app

ROOT_COMMAND = typer.main.get_command(app)
SPAN = re.compile(r"`(yolopool [^`\n]*)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# They pass their options on to a program with flags of its own.
PROGRAMS = ("control-plane", "worker", "importer")


def spans() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for said in SPAN.findall(path.read_text()):
            if said.split()[1:2] == ["COMMAND"]:
                continue
            yield str(path.relative_to(ROOT)), said


def rows() -> Iterator[tuple[str, str]]:
    """Of the tables of docs/cli.md: a command, and what is said of it."""
    for line in (ROOT / "docs" / "cli.md").read_text().splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| `yolopool") and len(cells) == 4:
            yield cells[1].strip(" `"), cells[2]


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, and the words after it."""
    command: Any = ROOT_COMMAND
    while words and isinstance(command, TyperGroup):
        if words[0].startswith("--"):
            break
        inner = command.commands.get(words[0].rstrip(","))
        if inner is None:
            return None, words
        command, words = inner, words[1:]
    return command, words


def wrong(said: str, beside: str = "") -> list[str]:
    """What of a named command does not exist."""
    faults = []
    first, *rest = said.split()[1:] or ["--help"]
    for name in first.split("\\|"):
        command, _ = found([name, *rest])
        if command is None:
            faults.append(f"{name} {' '.join(rest)}")
        elif name not in PROGRAMS:
            known = {
                "--help",
                *(option for p in command.params for option in [*p.opts, *p.secondary_opts]),
            }
            named = OPTION.findall(f"{said} {' '.join(re.findall('`(--[^`]*)`', beside))}")
            faults += [option for option in named if option not in known]
    return faults


def commands(group: TyperGroup, before: str = "yolopool") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}"


@pytest.mark.parametrize(("page", "said"), sorted(set(spans())))
def test_a_named_command_exists(page: str, said: str) -> None:
    assert wrong(said) == []


@pytest.mark.parametrize(("said", "beside"), list(rows()), ids=lambda text: text[:40])
def test_a_table_names_options_that_exist(said: str, beside: str) -> None:
    if "," not in said:
        assert wrong(said, beside) == []


def test_each_command_is_in_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert isinstance(ROOT_COMMAND, TyperGroup)
    every = list(commands(ROOT_COMMAND))
    assert len(every) > 20
    absent = [c for c in every if c not in page and f"`{c.split()[-1]} " not in page]
    assert [c for c in absent if c.split()[1] not in (*PROGRAMS, "version")] == []


def test_what_does_not_exist_is_seen() -> None:
    assert wrong("yolopool models lode NAME") == ["models lode NAME"]
    assert wrong("yolopool models load NAME --pinn") == ["--pinn"]
    assert wrong("yolopool status", "prints it; `--jason`") == ["--jason"]

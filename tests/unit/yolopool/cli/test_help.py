"""What `--help` and `--version` say: every command and option is described, and nothing is cut."""

import inspect
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import typer
from typer.testing import CliRunner

import yolopool
from yolopool.cli import main
from yolopool.cli.console import SectionedGroup
from yolopool.cli.detect import command as detecting
from yolopool.cli.register import registering
from yolopool.client.requests import DetectOptions, RegisterOptions
from yolopool.v1 import detection_pb2, types_pb2

# Fields of the protos that have other names in Python.
OTHER_NAMES = {"mask_format": {"masks"}, "tiling": {"tile_size", "tile_overlap"}}
# Commands that hand all their options to a server, which describes them itself.
PASSED_ON = {"control-plane", "worker", "importer"}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ROOT: Any = typer.main.get_command(main.app)
ALL = dict(commands(ROOT))


def shown(*arguments: str) -> str:
    # Else typer makes all commands of the application again each time.
    with patch("typer.testing._get_command", return_value=ROOT):
        done = CliRunner().invoke(main.app, list(arguments), env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("path", sorted(ALL), ids=lambda path: " ".join(path) or "yolopool")
def test_every_command_and_option_is_described(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help, "a command without help"
    for parameter in command.params:
        assert (getattr(parameter, "help", None) or "").strip(), parameter.name
    if path and path[0] in PASSED_ON:
        return
    text = shown(*path, "--help")
    if hasattr(command, "commands"):
        for name in command.commands:
            assert f"  {name} " in text
        assert "..." not in text.partition("[ARGS]...")[2], "a summary is longer than its line"


def test_every_command_is_under_one_heading() -> None:
    for command in ALL.values():
        if isinstance(command, SectionedGroup):
            listed = [name for names in command.sections.values() for name in names]
            assert sorted(listed) == sorted(command.commands)


def test_the_help_of_a_group_says_what_its_commands_say() -> None:
    for command in ALL.values():
        for name, later in getattr(command, "later", {}).items():
            assert later.summary == command.commands[name].get_short_help_str(200), name


def test_the_version_is_printed_both_ways() -> None:
    assert shown("--version") == shown("version") == f"{yolopool.__version__}\n"


def test_every_option_of_the_proto_is_in_python_and_on_the_command_line() -> None:
    python, flags = DetectOptions.__annotations__, inspect.signature(detecting.detect).parameters
    for field in detection_pb2.DetectOptions.DESCRIPTOR.fields:
        for name in OTHER_NAMES.get(field.name, {field.name}):
            assert name in python, f"DetectOptions lacks {name}"
            assert name in flags, f"yolopool detect has no option for {name}"


def test_every_setting_of_a_version_is_in_python_and_on_the_command_line() -> None:
    flags = inspect.signature(registering.models_register).parameters
    # Both sides of a rectangle are given as one size.
    sides = {"image_height": "image_size", "image_width": "image_size"}
    for field in types_pb2.VersionSettings.DESCRIPTOR.fields:
        name = sides.get(field.name, field.name)
        assert name in RegisterOptions.__annotations__, name
        assert name in flags, name

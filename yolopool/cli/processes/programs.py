"""Commands that become one process of a pool, which has flags of its own."""

import os
import sys

import typer

from yolopool.local import installed


def _become(module: str, extra: str, arguments: list[str]) -> None:
    """Replaces this process by the server, which reads its own flags and environment."""
    installed.check_extras(extra)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def control_plane(context: typer.Context) -> None:
    """Run a control plane ('yolopool control-plane --help')."""
    _become("control_plane", "control-plane", context.args)


def worker(context: typer.Context) -> None:
    """Run this machine's workers ('yolopool worker --help')."""
    _become("worker", "worker", context.args)


def importer(context: typer.Context) -> None:
    """Run an importer ('yolopool importer --help')."""
    _become("importer", "worker", context.args)

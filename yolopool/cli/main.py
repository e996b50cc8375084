"""The command line: every command is one or two calls of the client and one table.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not possible in this state, 9 tune: the goal is
out of reach.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import yolopool
from yolopool.cli.console import Later, SectionedGroup, as_line, exit_code, out, print_error
from yolopool.errors import YolopoolError
from yolopool.local.installed import StartFailed
from yolopool.server import exhaustion


class _Commands(SectionedGroup):
    sections = {  # noqa: RUF012 - typed in the base class
        "Start a pool on this machine": ["up", "demo"],
        "Use models": [
            "detect",
            "models",
            "bench",
            "tune",
            "watches",
            "changeover",
            "schedules",
            "rollouts",
            "store",
            "migrate",
        ],
        "Keep the fleet in a file": ["apply", "export"],
        "See what the pool does": [
            "status",
            "workers",
            "alerts",
            "events",
            "top",
            "explain",
            "doctor",
        ],
        "Decide who may call": ["keys", "tenants", "certs"],
        "Run one process of a pool": ["control-plane", "worker", "importer"],
        "Other": ["version"],
    }
    later = {  # noqa: RUF012
        "up": Later(
            "yolopool.cli.processes.up:up", "Start a whole pool on this machine; Ctrl-C ends it."
        ),
        "demo": Later(
            "yolopool.cli.processes.up:demo",
            "Start a pool, detect on the sample images, and end it.",
        ),
        "detect": Later(
            "yolopool.cli.detect.command:detect", "Run a model on images, videos and streams."
        ),
        "models": Later("yolopool.cli.models:app", "Register, load and configure models."),
        "bench": Later("yolopool.cli.curves.bench:bench", "Measure a model's speed by batch size."),
        "tune": Later(
            "yolopool.cli.curves.tune:tune", "Find batching and replicas that reach a p99 goal."
        ),
        "watches": Later(
            "yolopool.cli.sources.watches:watches_app",
            "Register new files of a folder or bucket as they come.",
        ),
        "changeover": Later(
            "yolopool.cli.fleet:changeover",
            "Load some models, then release others: all or nothing.",
        ),
        "schedules": Later("yolopool.cli.fleet:schedules_app", "Run changeovers at set times."),
        "rollouts": Later(
            "yolopool.cli.rollout.rollouts:rollouts_app",
            "Try a version on a part of the requests.",
        ),
        "store": Later(
            "yolopool.cli.validation.store_rules:store_app",
            "Limit what models' files take, and remove what nobody uses.",
        ),
        "migrate": Later("yolopool.cli.migrate:app", "Take models over from another server."),
        "apply": Later(
            "yolopool.cli.fleet_file.apply_command:apply", "Make the pool as a file says."
        ),
        "export": Later(
            "yolopool.cli.fleet_file.apply_command:export",
            "Write what the pool has as a fleet file.",
        ),
        "status": Later(
            "yolopool.cli.fleet:status",
            "Show the pool's totals: models, workers, memory, requests.",
        ),
        "workers": Later("yolopool.cli.fleet:workers_app", "List workers, and drain one."),
        "alerts": Later(
            "yolopool.cli.alerts.alerts:alerts_app",
            "See what is wrong, and say whom the pool tells.",
        ),
        "events": Later(
            "yolopool.cli.explain:events", "Show what happened in the pool, oldest first."
        ),
        "top": Later(
            "yolopool.cli.top:top", "Show devices and models at a glance, updating until Ctrl-C."
        ),
        "explain": Later(
            "yolopool.cli.explain:explain_app",
            "Explain a model's placement, or a request's outcome.",
        ),
        "doctor": Later(
            "yolopool.cli.doctor.diagnose:doctor",
            "Say why requests are slow, from the request log.",
        ),
        "keys": Later(
            "yolopool.cli.access.keys:keys_app", "Make, list, rotate and revoke API keys."
        ),
        "tenants": Later(
            "yolopool.cli.access.tenants:tenants_app",
            "Set limits of tenants, see what they used, delete all of one.",
        ),
        "certs": Later(
            "yolopool.cli.access.certs:certs_app",
            "Make a private authority, and issue certificates.",
        ),
        "control-plane": Later(
            "yolopool.cli.processes.programs:control_plane",
            "Run a control plane ('yolopool control-plane --help').",
            passes_on=True,
        ),
        "worker": Later(
            "yolopool.cli.processes.programs:worker",
            "Run this machine's workers ('yolopool worker --help').",
            passes_on=True,
        ),
        "importer": Later(
            "yolopool.cli.processes.programs:importer",
            "Run an importer ('yolopool importer --help').",
            passes_on=True,
        ),
    }


HELP = """Serve many YOLO models from few GPUs.

A pool is a control plane, which decides where each model is loaded, and one
worker for every GPU or CPU. Commands talk to the control plane at --address
(or YOLOPOOL_ADDRESS).

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid
input, 5 unavailable, 6 deadline exceeded, 7 no room (queue or memory), 8 not
possible in this state, 9 tune: the goal is out of reach.
"""
app = typer.Typer(
    cls=_Commands,
    help=HELP,
    epilog="Run 'yolopool COMMAND --help' for the options of a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Runs the command line; an error is one readable line and an exit code."""
    if sys.stdout is None:  # it was closed, as by >&-
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the whole process
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` has
        _forget_output()
        sys.exit(1)
    except (YolopoolError, OSError, MemoryError) as error:
        ended = exhaustion.typed(error) if isinstance(error, MemoryError) else error
        assert ended is not None, "the want of memory has a type"
        print_error(as_line(ended))
        _forget_output()
        sys.exit(exit_code(ended))
    except StartFailed as error:
        print_error(str(error))
        sys.exit(1)


def _forget_output() -> None:
    """What can't be written to stdout would fail again at the interpreter's end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version of this installation and exit.",
        ),
    ] = False,
) -> None:
    """Options that come before the command; the help is HELP."""


@app.command()
def version() -> None:
    """Print the version of this installation."""
    out.print(yolopool.__version__, highlight=False)

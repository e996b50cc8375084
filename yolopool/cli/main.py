"""The command line: every command is one or two calls of the client and one table.

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid input, 5 unavailable,
6 deadline exceeded, 7 no room (queue or memory), 8 not possible in this state.
"""

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import yolopool
from yolopool.cli import explain, migrate, models, result_tables, tables
from yolopool.cli import fleet as cli_fleet
from yolopool.cli.access import certs as cli_certs
from yolopool.cli.access import keys as cli_keys
from yolopool.cli.access import tenants as cli_tenants
from yolopool.cli.alerts import alerts as cli_alerts
from yolopool.cli.console import (
    Address,
    AsJson,
    SectionedGroup,
    as_line,
    exit_code,
    out,
    plain,
    print_error,
    print_json,
    say,
)
from yolopool.cli.curves import bench
from yolopool.cli.detect import command, saving
from yolopool.cli.doctor.diagnose import doctor
from yolopool.cli.fleet_file import apply_command
from yolopool.cli.rollout import rollouts as cli_rollouts
from yolopool.cli.sources import watches as cli_watches
from yolopool.cli.top import top
from yolopool.cli.validation import store_rules
from yolopool.client.client import Client
from yolopool.errors import YolopoolError
from yolopool.local import demo as demo_files
from yolopool.local import pool as local_pool
from yolopool.server import exhaustion
from yolopool.transport import DEFAULT_ADDRESS


class _Commands(SectionedGroup):
    sections = {  # noqa: RUF012 - typed in the base class
        "Start a pool on this machine": ["up", "demo"],
        "Use models": [
            "detect",
            "models",
            "bench",
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


HELP = """Serve many YOLO models from few GPUs.

A pool is a control plane, which decides where each model is loaded, and one
worker for every GPU or CPU. Commands talk to the control plane at --address
(or YOLOPOOL_ADDRESS).

Exit codes: 0 done, 1 other errors, 2 wrong usage, 3 not found, 4 invalid
input, 5 unavailable, 6 deadline exceeded, 7 no room (queue or memory), 8 not
possible in this state.
"""
app = typer.Typer(
    cls=_Commands,
    help=HELP,
    epilog="Run 'yolopool COMMAND --help' for the options of a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models.app, name="models")
app.add_typer(cli_fleet.workers_app, name="workers")
app.command("changeover")(cli_fleet.changeover)
app.add_typer(cli_fleet.schedules_app, name="schedules")
app.add_typer(cli_watches.watches_app, name="watches")
app.add_typer(cli_rollouts.rollouts_app, name="rollouts")
app.add_typer(cli_alerts.alerts_app, name="alerts")
app.add_typer(cli_keys.keys_app, name="keys")
app.add_typer(cli_tenants.tenants_app, name="tenants")
app.add_typer(store_rules.store_app, name="store")
app.add_typer(cli_certs.certs_app, name="certs")
app.add_typer(explain.explain_app, name="explain")
app.add_typer(migrate.app, name="migrate")
app.command("detect")(command.detect)
app.command("apply")(apply_command.apply)
app.command("export")(apply_command.export)
app.command("bench")(bench.bench)
app.command("doctor")(doctor)
app.command("top")(top)
app.command("events")(explain.events)
models.app.command("plan")(explain.plan)


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
    except local_pool.StartFailed as error:
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


# --- the pool ---------------------------------------------------------------------------------


@app.command()
def status(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show the pool's totals: models, workers, memory, requests."""
    with Client(address) as client:
        fleet = client.fleet()
    print_json(plain(fleet)) if as_json else out.print(tables.fleet(fleet))


@app.command()
def version() -> None:
    """Print the version of this installation."""
    out.print(yolopool.__version__, highlight=False)


# --- servers ----------------------------------------------------------------------------------

MAX_PORT = 65535
Port = Annotated[
    int, typer.Option("--port", min=0, max=MAX_PORT, help="Port for gRPC; 0: any free one.")
]
HttpPort = Annotated[
    int,
    typer.Option(
        "--http-port", min=0, max=MAX_PORT, help="Port for /metrics and health; 0: any free one."
    ),
]
Devices = Annotated[
    str,
    typer.Option(help="Devices to use: auto, cpu, cpu:2x8, cuda, cuda:GPU-<uuid>,... or sim:N."),
]
Budget = Annotated[
    str,
    typer.Option(help="Memory for models on each device: bytes, 4GiB, or a fraction such as 0.8."),
]
Redis = Annotated[
    str, typer.Option(help="URL of your own Redis; by default an embedded one is started.")
]


@app.command("up")
def up_command(
    data_dir: Annotated[
        Path, typer.Option(help="Folder for everything that the pool stores.")
    ] = Path("~/.yolopool"),
    host: Annotated[str, typer.Option(help="Network address to listen on.")] = "127.0.0.1",
    port: Port = 50051,
    http_port: HttpPort = 8080,
    redis: Redis = "",
    devices: Devices = "auto",
    memory_budget: Budget = "",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", help="Load and pin this model at the start; repeatable."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Register the demo model and try it.")
    ] = True,
    auth: Annotated[bool, typer.Option("--auth", help="Ask every caller for an API key.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a --host beyond this machine without TLS.")
    ] = False,
) -> None:
    """Start a whole pool on this machine; Ctrl-C ends it."""
    options = local_pool.PoolOptions(
        data_dir.expanduser().absolute(),
        host,
        port,
        http_port,
        redis,
        devices,
        memory_budget,
        tuple(load or ()),
        auth,
        insecure,
    )
    local_pool.refuse_busy(options)
    say(f"starting in {options.data_dir}")
    with local_pool.LocalPool(options, say) as pool:
        if demo:
            _first_detection(pool.address, pool.api_key)
        # Before READY is printed: whoever reads it may stop the pool at once.
        stopping = local_pool.on_signals(pool)
        out.print(f"[bold green]READY[/] gRPC {pool.address}  console http://{pool.http}/console/")
        if auth:
            say(f"callers need a key: export YOLOPOOL_API_KEY=$(cat {options.data_dir}/admin.key)")
        first = (
            f"detect IMAGE --model {demo_files.MAIN}" if demo else "models register NAME FILE.pt"
        )
        out.print(
            f"try: yolopool {first} --address {pool.address}\nCtrl-C ends it",
            highlight=False,
            soft_wrap=True,
        )
        pool.watch(stopping)
        say("stopping")


@app.command("demo")
def demo_command(
    save: Annotated[
        Path, typer.Option(help="File for the first image with the results drawn.")
    ] = Path("yolopool-demo.jpg"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for the pool's files; default: a temporary one.")
    ] = None,
    devices: Devices = "auto",
    memory_budget: Budget = "",
) -> None:
    """Start a pool, detect on the sample images, and end it."""
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        options = local_pool.PoolOptions(
            (data_dir or Path(scratch)).expanduser().absolute(),
            port=0,
            http_port=0,
            devices=devices,
            memory_budget=memory_budget,
        )
        say("starting a pool")
        with local_pool.LocalPool(options, say) as pool, Client(pool.address) as client:
            answers = demo_files.run(client, say)
    for image, found in answers[:1]:
        out.print(result_tables.results(found, image.name))
        out.print()
        saving.write(found, save)
    out.print(result_tables.timing([(image.name, found) for image, found in answers]))
    out.print(f"annotated image: {save}", highlight=False)


def _first_detection(address: str, api_key: str) -> None:
    files = demo_files.find()
    with Client(address, api_key) as client:
        demo_files.register(client, demo_files.MAIN, files.models[demo_files.MAIN])
        found = client.detect(files.images[0], model=demo_files.MAIN)
    say(f"first detection: {found!r}")


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _become(module: str, extra: str, arguments: list[str]) -> None:
    """Replaces this process by the server, which reads its own flags and environment."""
    local_pool.check_extras(extra)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


@app.command("control-plane", context_settings=_PASS_ON, add_help_option=False)
def control_plane_command(context: typer.Context) -> None:
    """Run a control plane ('yolopool control-plane --help')."""
    _become("control_plane", "control-plane", context.args)


@app.command("worker", context_settings=_PASS_ON, add_help_option=False)
def worker_command(context: typer.Context) -> None:
    """Run this machine's workers ('yolopool worker --help')."""
    _become("worker", "worker", context.args)


@app.command("importer", context_settings=_PASS_ON, add_help_option=False)
def importer_command(context: typer.Context) -> None:
    """Run an importer ('yolopool importer --help')."""
    _become("importer", "worker", context.args)

"""Commands that start a whole pool on this machine: `up` and `demo`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli import result_tables
from yolopool.cli.console import out, say
from yolopool.cli.detect import saving
from yolopool.client.client import Client
from yolopool.local import demo as demo_files
from yolopool.local import pool as local_pool

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


def up(
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


def demo(
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

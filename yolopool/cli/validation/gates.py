"""`yolopool models gate`: what new versions must reach before they take over."""

from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli.completion import pool_names
from yolopool.cli.console import Address, AsJson, out, plain, print_json, progress_bar, say
from yolopool.cli.validation import rule_tables
from yolopool.client.client import Client
from yolopool.errors import InvalidOption
from yolopool.transport import DEFAULT_ADDRESS

gates_app = typer.Typer(
    help="Ask new versions for a least accuracy on labelled images.", no_args_is_help=True
)
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the model.", autocompletion=pool_names.models),
]


@gates_app.command("set")
def set_(
    name: Name,
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Zip or folder of images with labels (YOLO .txt, or a COCO .json)."
        ),
    ],
    min_map50_95: Annotated[
        float, typer.Option("--min-map50-95", help="Least mAP50-95, 0..1.", min=0, max=1)
    ] = 0.0,
    min_map50: Annotated[
        float, typer.Option("--min-map50", help="Least mAP50, 0..1.", min=0, max=1)
    ] = 0.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set the gate of a model.

    The pool evaluates every version on the images by itself. One that fails is kept, and is not
    promoted unless you say --ungated; nor does the bare name mean it.
    """
    if not (min_map50_95 or min_map50):
        raise InvalidOption("give --min-map50-95 or --min-map50")
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        rule = client.set_gate(
            name,
            data,
            min_map50_95=min_map50_95,
            min_map50=min_map50,
            progress=lambda step, share: progress(step, share),
        )
    print_json(plain(rule)) if as_json else out.print(rule_tables.gates((rule,)))


@gates_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the gates."""
    with Client(address) as client:
        found = tuple(rule for rule in client.rules() if rule.gate is not None)
    print_json([plain(rule) for rule in found]) if as_json else out.print(rule_tables.gates(found))


@gates_app.command("clear")
def clear(name: Name, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """End the gate of a model."""
    with Client(address) as client:
        rule = client.clear_gate(name)
    print_json(plain(rule)) if as_json else say(f"{name} has no gate any more")

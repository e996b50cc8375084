"""`yolopool watches`: folders and prefixes whose new files become versions by themselves."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from yolopool.cli.console import Address, AsJson, out, plain, print_json
from yolopool.cli.tables import plain_table
from yolopool.client.client import Client
from yolopool.client.sources.watch_records import Watch
from yolopool.transport import DEFAULT_ADDRESS

watches_app = typer.Typer(
    help="Register new files of a folder or bucket as they come.", no_args_is_help=True
)


@watches_app.command("add")
def add(
    model: Annotated[str, typer.Argument(help="Model that the files are versions of.")],
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="file:///folder/ on the control plane's machine, or s3://bucket/prefix/.",
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="Name of the watch; default: that of the model.")
    ] = "",
    pattern: Annotated[
        list[str] | None,
        typer.Option("--pattern", help="File names, such as 'best-*.pt'; repeatable."),
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Credentials of the control plane for S3.")
    ] = "",
    every_s: Annotated[
        float, typer.Option("--every-s", help="Seconds between two looks.", min=1)
    ] = 30.0,
    settle_s: Annotated[
        float,
        typer.Option(
            "--settle-s", help="Seconds a file must stay as it is before it is registered.", min=0
        ),
    ] = 5.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Watch a folder or prefix, or change a watch.

    The newest file that is there becomes a version, and then each new one.
    """
    with Client(address) as client:
        watch = client.set_watch(
            name or model.replace("/", "."),
            uri,
            model,
            patterns=pattern or (),
            profile=profile,
            every_s=every_s,
            settle_s=settle_s,
        )
    print_json(plain(watch)) if as_json else out.print(table((watch,)))


@watches_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the watches, and why one can't look."""
    with Client(address) as client:
        found = client.watches()
    print_json([plain(watch) for watch in found]) if as_json else out.print(table(found))


@watches_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the watch.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Remove a watch; the versions that it registered stay."""
    with Client(address) as client:
        client.delete_watch(name)
    out.print(f"removed {name}", highlight=False)


def table(watches: tuple[Watch, ...]) -> Table:
    """Watches as people read them; - stands for none."""
    shown = plain_table("WATCH", "MODEL", "FROM", "FILES", "EVERY", "KNOWN", "ERROR")
    for one in watches:
        shown.add_row(
            one.name,
            one.model,
            escape(one.uri),
            escape(" ".join(one.patterns)),
            f"{one.every_s:g} s",
            str(one.known_files),
            escape(one.error) or "-",
        )
    return shown

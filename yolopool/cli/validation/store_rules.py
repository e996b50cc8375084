"""`yolopool store`: what models' files may take, how many versions are kept, what nobody uses."""

from typing import Annotated

import typer

from yolopool.cli import fleet
from yolopool.cli.access.tenants import size_of
from yolopool.cli.console import Address, AsJson, out, plain, print_json
from yolopool.cli.validation import rule_tables
from yolopool.client.client import Client
from yolopool.transport import DEFAULT_ADDRESS

store_app = typer.Typer(
    help="Limit what models' files take, and remove what nobody uses.", no_args_is_help=True
)
store_app.command("gc")(fleet.sweep)
Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="Of names of models: 'team-a/*', or one name.")
]


@store_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the limits, and what models' files take now."""
    with Client(address) as client:
        found = client.rules()
    print_json([plain(rule) for rule in found]) if as_json else out.print(rule_tables.store(found))


@store_app.command("limit")
def limit(
    pattern: Pattern,
    store_size: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 10GB; 0: no limit.")],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set what uploads and packs of models may take together."""
    with Client(address) as client:
        rule = client.set_store_rule(pattern, store_bytes=size_of(store_size))
    print_json(plain(rule)) if as_json else out.print(rule_tables.store((rule,)))


@store_app.command("keep")
def keep(
    pattern: Pattern,
    versions: Annotated[
        int, typer.Argument(metavar="VERSIONS", help="Newest of each model; 0: all.", min=0)
    ],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set how many versions of each model are kept.

    Older ones are deleted once nothing refers to them and nobody wants them loaded.
    """
    with Client(address) as client:
        rule = client.set_store_rule(pattern, keep_versions=versions)
    print_json(plain(rule)) if as_json else out.print(rule_tables.store((rule,)))

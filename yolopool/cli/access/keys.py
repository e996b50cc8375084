"""`yolopool keys`: who may call the pool."""

import time
from datetime import UTC, datetime
from typing import Annotated, cast

import typer
from rich.table import Table

from yolopool.cli.console import Address, AsJson, out, plain, print_json, say
from yolopool.client.access.api_keys import ApiKey, IssuedKey, RoleName
from yolopool.client.client import Client
from yolopool.transport import DEFAULT_ADDRESS

keys_app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The id of the key, from `keys list`.")]
DAY_S = 86_400.0


@keys_app.command("create")
def create(
    role: Annotated[
        str,
        typer.Option(
            "--role", help="What it may do: detect, operate, admin, worker, control-plane."
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("--models", help="Pattern of model names, such as 'team-a/*'; repeatable."),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Who uses it, for people.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Its tenant: see `tenants`.")] = "",
    days: Annotated[
        float, typer.Option("--days", help="Days until it expires; 0: never.", min=0)
    ] = 0.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make an API key. Its secret is printed once, to stdout."""
    with Client(address) as client:
        issued = client.create_key(
            cast(RoleName, role),
            models=models or (),
            label=label,
            tenant=tenant,
            lifetime_s=days * DAY_S,
        )
    _tell(issued, as_json)


@keys_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the API keys, newest first, without their secrets."""
    with Client(address) as client:
        found = client.list_keys()
    print_json([plain(key) for key in found]) if as_json else out.print(table(found, time.time()))


@keys_app.command("rotate")
def rotate(
    id: KeyId,
    overlap_s: Annotated[
        float,
        typer.Option("--overlap", help="Seconds that the former secret is still valid.", min=0),
    ] = 0.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Give a key another secret, under the same id. The secret is printed once, to stdout."""
    with Client(address) as client:
        issued = client.rotate_key(id, overlap_s=overlap_s)
    _tell(issued, as_json)


@keys_app.command("revoke")
def revoke(id: KeyId, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """End a key, at once."""
    with Client(address) as client:
        ended = client.revoke_key(id)
    print_json(plain(ended)) if as_json else say(f"key {ended.id} is revoked")


def table(keys: tuple[ApiKey, ...], now: float) -> Table:
    """The keys as people read them."""
    shown = Table("ID", "Label", "Tenant", "Role", "Models", "Made", "State", box=None)
    for key in keys:
        shown.add_row(
            key.id,
            key.label,
            key.tenant,
            key.role,
            " ".join(key.models),
            _day(key.created_unix_s),
            _state(key, now),
        )
    return shown


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_unix_s:
        return f"revoked {_day(key.revoked_unix_s)}"
    if not key.expires_unix_s:
        return "valid"
    return f"{'valid to' if now < key.expires_unix_s else 'expired'} {_day(key.expires_unix_s)}"


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def _tell(issued: IssuedKey, as_json: bool) -> None:
    if as_json:
        print_json({**plain(issued.key), "secret": issued.secret})
        return
    out.print(issued.secret, markup=False, highlight=False, soft_wrap=True)
    say(f"this is key {issued.key.id}; it is shown this once: set it as YOLOPOOL_API_KEY")

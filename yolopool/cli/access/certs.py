"""`yolopool certs`: a private authority for a fleet that has none, and who joins it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from yolopool.cli.console import Address, AsJson, out, plain, print_json, say
from yolopool.client.access.joined_processes import JoinedProcess
from yolopool.client.client import Client
from yolopool.errors import FailedPrecondition
from yolopool.transport import DEFAULT_ADDRESS

certs_app = typer.Typer(
    help="Make a private authority, and issue certificates.", no_args_is_help=True
)
Folder = Annotated[
    Path, typer.Option("--dir", help="Folder of the authority; keep its ca.key offline.")
]
DEFAULT_FOLDER = Path("certs")
MINUTE_S = 60.0


@certs_app.command("init")
def init(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Make an authority: ca.pem and ca.key.

    Every process and client gets ca.pem; ca.key is needed to issue certificates alone.
    """
    _tell(_authority().create(folder, time.time()), as_json)


@certs_app.command("issue")
def issue(
    name: Annotated[str, typer.Argument(help="Name of the process or client.")],
    role: Annotated[
        str, typer.Option("--role", help="What it is: control-plane, worker or client.")
    ],
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address under which others reach it; repeatable."),
    ] = None,
    days: Annotated[float, typer.Option("--days", help="Days until it expires.", min=0)] = 90.0,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Issue NAME.pem and NAME.key. Importers are workers. Processes read renewed files by
    themselves.
    """
    _tell(_authority().issue(folder, name, role, hosts or (), days, time.time()), as_json)


@certs_app.command("show")
def show(
    files: Annotated[list[Path], typer.Argument(help="Certificates in PEM.")],
    as_json: AsJson = False,
) -> None:
    """Tell what certificates say."""
    for file in files:
        _tell(_authority().shown(file), as_json)


@certs_app.command("join-token")
def join_token(
    name: Annotated[
        str, typer.Option("--name", help="Name of the process; default: it says its own.")
    ] = "",
    role: Annotated[
        str, typer.Option("--role", help="What it is: worker, which importers are as well.")
    ] = "worker",
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="Name or address under which control planes reach it; repeatable; default: the "
            "address that it joins from.",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", help="Minutes until it expires.", min=0)
    ] = 15.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make a token that lets one process join.

    It is printed once, to stdout. Put it in a file of that host, and start the process with
    --join-token-file: it gets a certificate, and renews it.
    """
    with Client(address) as client:
        made = client.create_join_token(
            name, role=role, hosts=hosts or (), lifetime_s=minutes * MINUTE_S
        )
    if as_json:
        print_json({**plain(made.process), "token": made.token})
        return
    out.print(made.token, markup=False, highlight=False, soft_wrap=True)
    say(f"this is token {made.process.id}; it is shown this once, and good for one process")


@certs_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List who joined, and tokens that nobody used."""
    with Client(address) as client:
        found = client.certificates()
    print_json([plain(one) for one in found]) if as_json else out.print(table(found, time.time()))


@certs_app.command("revoke")
def revoke(
    name: Annotated[
        str, typer.Argument(help="Name of a process that joined, or an id from `certs list`.")
    ],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """End the certificates of who joined, or a token."""
    with Client(address) as client:
        ended = client.revoke_certificate(name)
    if as_json:
        print_json([plain(one) for one in ended])
        return
    for one in ended:
        say(f"{one.name or 'token'} {one.id} is revoked")


def table(processes: Sequence[JoinedProcess], now: float) -> Table:
    """The processes as people read them."""
    shown = Table("ID", "Name", "Role", "Hosts", "Made", "State", box=None)
    for one in processes:
        made = _moment(one.created_unix_s)
        shown.add_row(one.id, one.name, one.role, " ".join(one.hosts), made, _state(one, now))
    return shown


def _state(one: JoinedProcess, now: float) -> str:
    if one.revoked_unix_s:
        return f"revoked {_moment(one.revoked_unix_s)}"
    if not one.joined_unix_s:
        word = "token, valid to" if now < one.expires_unix_s else "token, expired"
        return f"{word} {_moment(one.expires_unix_s)}"
    word = "joined, valid to" if now < one.until_unix_s else "expired"
    return f"{word} {_moment(one.until_unix_s)}"


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def _authority() -> Any:
    """The library is of the servers' extra, and clients do not need it."""
    try:
        from yolopool.tls import authority
    except ImportError as error:
        raise FailedPrecondition(
            "certificates need the package cryptography: pip install 'yolopool[server]'"
        ) from error
    return authority


def _tell(certificate: Any, as_json: bool) -> None:
    if as_json:
        print_json({**plain(certificate), "path": str(certificate.path)})
        return
    what = "authority" if certificate.is_authority else certificate.role or "of another authority"
    until = datetime.fromtimestamp(certificate.until_unix_s, UTC).strftime("%Y-%m-%d")
    hosts = f", reached as {' '.join(certificate.hosts)}" if certificate.hosts else ""
    line = f"{certificate.path}: {certificate.subject}, {what}{hosts}, valid to {until}"
    out.print(line, markup=False, highlight=False, soft_wrap=True)

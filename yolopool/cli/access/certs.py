"""`yolopool certs`: a private authority for a fleet that has none."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from yolopool.cli.console import AsJson, out, plain, print_json
from yolopool.errors import FailedPrecondition

certs_app = typer.Typer(
    help="Make a private authority, and issue certificates.", no_args_is_help=True
)
Folder = Annotated[
    Path, typer.Option("--dir", help="Folder of the authority; keep its ca.key offline.")
]
DEFAULT_FOLDER = Path("certs")


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

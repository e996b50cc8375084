"""`yolopool alerts webhooks`: who is told of alerts."""

from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli.alerts import alert_tables
from yolopool.cli.console import Address, AsJson, out, plain, print_json
from yolopool.client.client import Client
from yolopool.transport import DEFAULT_ADDRESS

webhooks_app = typer.Typer(help="Say whom the pool tells of alerts.", no_args_is_help=True)


@webhooks_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the webhook: a-z 0-9 . _ -")],
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, or http://.")],
    form: Annotated[
        str, typer.Option("--form", help="json, or slack for what takes Slack's messages.")
    ] = "json",
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file", help="File of a secret that messages are signed with.", exists=True
        ),
    ] = None,
    severity: Annotated[
        str, typer.Option("--severity", help="critical: nothing less is told.")
    ] = "",
    rule: Annotated[
        str, typer.Option("--rule", help="Only rules that match, with * for any letters.")
    ] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Tell a receiver of alerts, or change what it is told.

    Alerts that fire already are told at once.
    """
    secret = secret_file.read_text().strip() if secret_file is not None else ""
    with Client(address) as client:
        hook = client.set_webhook(name, url, form=form, secret=secret, severity=severity, rule=rule)
    print_json(plain(hook)) if as_json else out.print(alert_tables.webhooks((hook,)))


@webhooks_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the receivers, and why the last call of one failed."""
    with Client(address) as client:
        found = client.webhooks()
    if as_json:
        print_json([plain(one) for one in found])
    else:
        out.print(alert_tables.webhooks(found))


@webhooks_app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the webhook.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Send a receiver a test, and wait for its answer."""
    with Client(address) as client:
        status = client.test_webhook(name)
    out.print(f"{name} answered {status}", highlight=False)


@webhooks_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the webhook.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Tell a receiver nothing more."""
    with Client(address) as client:
        client.delete_webhook(name)
    out.print(f"removed {name}", highlight=False)

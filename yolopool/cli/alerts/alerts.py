"""`yolopool alerts`: what is wrong in the pool now, and when it says so."""

from typing import Annotated

import typer

from yolopool.cli.alerts import alert_tables, webhooks
from yolopool.cli.console import Address, AsJson, out, plain, print_json
from yolopool.client.client import Client
from yolopool.transport import DEFAULT_ADDRESS

alerts_app = typer.Typer(
    help="See what is wrong, and say whom the pool tells.", no_args_is_help=True
)
alerts_app.add_typer(webhooks.webhooks_app, name="webhooks")


@alerts_app.command("list")
def list_(
    stage: Annotated[
        str, typer.Option("--stage", help="Only pending, firing or resolved ones.")
    ] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List the alerts: those that fire first.

    Those that ended within the last hour are the last.
    """
    with Client(address) as client:
        found = client.alerts(stage)
        units = {rule.name: rule.unit for rule in client.alert_rules()} if found else {}
    if as_json:
        print_json([plain(one) for one in found])
    elif found:
        out.print(alert_tables.alerts(found, units))
    else:
        out.print("no alerts", highlight=False)


@alerts_app.command("rules")
def rules(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the rules, and what is set for models and workers."""
    with Client(address) as client:
        found = client.alert_rules()
    print_json([plain(one) for one in found]) if as_json else out.print(alert_tables.rules(found))


@alerts_app.command("resolve")
def resolve(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the alert, as `list` has it.")],
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """End an alert by hand.

    It fires again once its condition has ended and come back.
    """
    with Client(address) as client:
        alert = client.resolve_alert(id_)
    if as_json:
        print_json(plain(alert))
    else:
        out.print(f"resolved {alert.rule} {alert.subject}".strip(), highlight=False)


@alerts_app.command("silence")
def silence(
    rule: Annotated[
        str, typer.Argument(metavar="[RULE]", help="Rule, with * for any letters; default: all.")
    ] = "",
    about: Annotated[
        str, typer.Option("--about", help="Model, worker or control plane, with * for any letters.")
    ] = "",
    for_s: Annotated[float, typer.Option("--for-s", help="Seconds from now.", min=1)] = 3600.0,
    why: Annotated[str, typer.Option("--why", help="Reason, for people.")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Tell nobody of some alerts for a while.

    They are listed all the same.
    """
    with Client(address) as client:
        made = client.silence_alerts(rule=rule, subject=about, for_s=for_s, why=why)
    print_json(plain(made)) if as_json else out.print(alert_tables.silences((made,)))


@alerts_app.command("silences")
def silences(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the silences."""
    with Client(address) as client:
        found = client.alert_silences()
    if as_json:
        print_json([plain(one) for one in found])
    else:
        out.print(alert_tables.silences(found))


@alerts_app.command("unsilence")
def unsilence(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the silence.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """End a silence: what fires still is told."""
    with Client(address) as client:
        client.end_silence(id_)
    out.print(f"ended {id_}", highlight=False)


@alerts_app.command("threshold")
def threshold(
    rule: Annotated[str, typer.Argument(help="Name of the rule, as `rules` has it.")],
    pattern: Annotated[
        str,
        typer.Argument(help="Models (name or name@version) or workers, with * for any letters."),
    ],
    value: Annotated[
        float | None,
        typer.Option("--value", help="Threshold: a ratio as 0.05, a time in seconds."),
    ] = None,
    for_s: Annotated[
        float | None, typer.Option("--for-s", help="Seconds that it must hold.", min=0)
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="It never fires for these.")] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Set when a rule fires for some models or workers.

    Without options, what was set is taken back.
    """
    with Client(address) as client:
        held = client.set_alert_threshold(rule, pattern, value=value, for_s=for_s, off=off)
    print_json(plain(held)) if as_json else out.print(alert_tables.rules((held,)))

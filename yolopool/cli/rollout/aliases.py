"""`yolopool models promote`, `rollback`, `alias`, `aliases`, `unalias`: what a name means now."""

import re
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from yolopool.cli.console import Address, AsJson, ModelRef, out, plain, print_json
from yolopool.cli.event_tables import moment
from yolopool.cli.tables import plain_table
from yolopool.client.client import Client
from yolopool.client.rollout.alias_records import Alias, AliasChange
from yolopool.errors import InvalidOption
from yolopool.names import parse_ref
from yolopool.transport import DEFAULT_ADDRESS

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TARGET = re.compile(r"(\d{1,9})(?:=(\d{1,3}(?:\.\d)?)%?)?")

AliasRef = Annotated[
    str,
    typer.Argument(metavar="NAME:ALIAS", help="Name of the model and the alias: shapes:stable."),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="How long the version that it leaves stays loaded: 10m, 1h; default: as before.",
    ),
]
Within = Annotated[
    str | None,
    typer.Option("--within", help="Give up if it is not loaded by then: 10m (default), 1h."),
]
Why = Annotated[str, typer.Option("--why", help="For the history.")]
Force = Annotated[
    bool, typer.Option("--force", help="Move at once, loaded or not: requests wait for the load.")
]
Ungated = Annotated[
    bool, typer.Option("--ungated", help="Though it fails, or waits for, the model's gate.")
]
Wait = Annotated[bool, typer.Option(help="Wait until it has moved.")]


def promote(
    model: ModelRef,
    to: Annotated[str, typer.Option("--to", help="The alias, such as stable.")],
    expect: Annotated[
        int | None,
        typer.Option(
            "--expect", help="The version that it means now; 0: it does not exist.", min=0
        ),
    ] = None,
    keep: Keep = None,
    within: Within = None,
    why: Why = "",
    force: Force = False,
    ungated: Ungated = False,
    wait: Wait = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Move an alias to a version without a gap.

    The version is loaded first, as often as the one before; then the alias moves.
    """
    with Client(address) as client:
        alias = client.promote(
            model,
            to,
            expected_version=expect,
            keep_s=span(keep) if keep is not None else None,
            within_s=span(within) if within is not None else 0.0,
            force=force,
            ungated=ungated,
            why=why,
            wait=wait,
        )
    _show(alias, as_json)


def rollback(
    alias: AliasRef,
    within: Within = None,
    why: Why = "",
    force: Force = False,
    wait: Wait = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Move an alias back to what it meant before.

    At once while that is still loaded; a switch in progress is given up instead.
    """
    with Client(address) as client:
        held = client.rollback(
            alias,
            within_s=span(within) if within is not None else 0.0,
            force=force,
            why=why,
            wait=wait,
        )
    _show(held, as_json)


def set_(
    alias: AliasRef,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERSION[=PERCENT]", help="What it is to mean: 4, or 3=95 4=5."),
    ] = None,
    keep: Keep = None,
    within: Within = None,
    why: Why = "",
    force: Force = False,
    ungated: Ungated = False,
    wait: Wait = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show an alias and its history, or set what it means.

    Several versions share the requests by their percentages.
    """
    with Client(address) as client:
        if not targets:
            known = client.alias(alias)
            print_json(plain(known)) if as_json else out.print(details(known))
            return
        held = client.set_alias(
            alias,
            weights(targets),
            keep_s=span(keep) if keep is not None else None,
            within_s=span(within) if within is not None else 0.0,
            force=force,
            ungated=ungated,
            why=why,
            wait=wait,
        )
    _show(held, as_json)


def list_(
    prefix: Annotated[str, typer.Argument(help="Only of models whose name begins so.")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List aliases and what they mean."""
    with Client(address) as client:
        known = client.aliases(prefix)
    if as_json:
        print_json([plain(alias) for alias in known])
    else:
        out.print(table(*known))


def unalias(alias: AliasRef, as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Delete an alias; its versions stay."""
    with Client(address) as client:
        client.delete_alias(alias)
    print_json(alias) if as_json else out.print(f"deleted {alias}", highlight=False)


def span(text: str) -> float:
    """Seconds of 90, 90s, 10m, 1.5h or 2d. Raises InvalidOption."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise InvalidOption(f"{text!r} is no span of time: write 90s, 10m, 1.5h or 2d")
    return float(found[1]) * _SECONDS[found[2]]


def weights(texts: list[str]) -> dict[int, int]:
    """Weights in per mille of 4, or of 3=95 4=5. Raises InvalidOption."""
    found = [_TARGET.fullmatch(text) for text in texts]
    parts = [(int(one[1]), one[2]) for one in found if one is not None]
    if len(parts) < len(texts) or len(dict(parts)) < len(parts):
        raise InvalidOption(f"{' '.join(texts)}: write each version once, as 4, or 3=95 4=5")
    if len(parts) == 1 and parts[0][1] is None:
        return {parts[0][0]: 1000}
    if any(percent is None for _, percent in parts):
        raise InvalidOption(f"{' '.join(texts)}: write the percentage of each, as 3=95 4=5")
    shares = {version: round(float(percent) * 10) for version, percent in parts}
    if sum(shares.values()) != 1000:
        raise InvalidOption(f"the percentages sum to {sum(shares.values()) / 10:g}, not to 100")
    return shares


def table(*known: Alias) -> Table:
    """A line for each alias."""
    rows = plain_table("ALIAS", "MEANS", "SINCE", "BEFORE", "IN PROGRESS")
    for alias in known:
        rows.add_row(
            escape(alias.name),
            _means(alias),
            moment(alias.changed_unix_s),
            in_words(alias.previous) if alias.previous else "-",
            escape(_progress(alias)) or "-",
        )
    return rows


def details(alias: Alias) -> Table:
    """One alias with its history, the newest first."""
    rows = plain_table("WHEN", "WHAT", "FROM", "TO", "BY", "WHY", title=f"[bold]{alias.name}[/]")
    facts = [f"means {_means(alias)}, revision {alias.revision}"]
    if alias.switch is not None:
        facts.append(_progress(alias))
    facts += [f"keeps {one} loaded until {moment(until)}" for one, until in alias.kept.items()]
    rows.caption = escape("; ".join(facts))
    rows.caption_justify = "left"
    for change in reversed(alias.history):
        rows.add_row(*map(escape, _row(change)))
    return rows


def in_words(targets: Mapping[int, int]) -> str:
    """3, or 3 95 % + 4 5 %."""
    if len(targets) == 1:
        return str(next(iter(targets)))
    return " + ".join(f"{version} {weight / 10:g} %" for version, weight in targets.items())


def _means(alias: Alias) -> str:
    return f"one of {', '.join(alias.family)}" if alias.family else in_words(alias.targets)


def _row(change: AliasChange) -> tuple[str, ...]:
    return (
        moment(change.unix_s),
        change.kind,
        in_words(change.before) if change.before else "-",
        in_words(change.after) or "-",
        change.by or "-",
        change.why or "-",
    )


def _progress(alias: Alias) -> str:
    if alias.switch is None:
        return ""
    waits = f", waits for {alias.switch.waits_for}" if alias.switch.waits_for else ""
    return f"to {in_words(alias.switch.targets)}{waits}"


def _show(alias: Alias, as_json: bool) -> None:
    if as_json:
        print_json(plain(alias))
        return
    name = parse_ref(alias.name)
    if alias.switch is not None:
        text = f"{alias.name} still means {in_words(alias.targets)}; it moves {_progress(alias)}"
    else:
        text = f"{alias.name} means {in_words(alias.targets)}"
        kept = [version for version in alias.kept if version not in alias.targets]
        if kept and alias.previous:
            text += f"\nback: yolopool models rollback {name}"
    out.print(text, highlight=False, soft_wrap=True)

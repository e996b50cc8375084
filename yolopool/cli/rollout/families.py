"""`yolopool models family`: an alias that is one of several models, chosen at each request."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from yolopool.cli.console import Address, AsJson, out, plain, print_json
from yolopool.cli.fleet import SunPlace
from yolopool.cli.rollout.aliases import AliasRef, Why
from yolopool.cli.schedules.schedule_tables import local_time
from yolopool.cli.tables import plain_table
from yolopool.client.client import Client
from yolopool.client.rollout.family_records import Family, FamilyMember
from yolopool.errors import InvalidOption
from yolopool.transport import DEFAULT_ADDRESS


def family(
    alias: AliasRef,
    members: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BEGINS=]MODEL",
            help="From small to large: plates-n plates-s plates-m. Or by the time of day: "
            "06:00=plates 22:00=plates-ir, or dawn=plates dusk-15m=plates-ir at --place.",
        ),
    ] = None,
    within_s: Annotated[
        float,
        typer.Option(
            "--within",
            help="Choose a size that answers within so many seconds, also where the deadline of a "
            "request is later; 0: the deadline alone.",
            min=0.0,
        ),
    ] = 0.0,
    time_zone: Annotated[
        str, typer.Option("--time-zone", help="Of times of day; default: UTC.")
    ] = "",
    place: SunPlace = None,
    no_load: Annotated[
        bool, typer.Option("--no-load", help="Do not ask for the members to be loaded.")
    ] = False,
    why: Why = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show a family, or make one of several models.

    Of those that are loaded the largest answers that meets the deadline, or the one whose time of
    day it is.
    """
    with Client(address) as client:
        if members:
            known = client.set_family(
                alias,
                members_of(members),
                within_s=within_s,
                time_zone=time_zone,
                place=place,
                why=why,
                load=not no_load,
            )
        else:
            known = client.family(alias)
    print_json(plain(known)) if as_json else out.print(table(known))


def members_of(texts: Sequence[str]) -> Sequence[str] | Mapping[str, str]:
    """Models, or models by when they begin. Raises InvalidOption."""
    pairs = [text.rpartition("=") for text in texts]
    if not any(equals for _, equals, _ in pairs):
        return list(texts)
    begins = {begin: model for begin, _, model in pairs}
    if len(begins) < len(texts) or "" in begins:
        raise InvalidOption(
            f"{' '.join(texts)}: say of each when it begins, as 06:00=plates 22:00=plates-ir"
        )
    return begins


def table(family: Family) -> Table:
    """A line for each member."""
    by_time = any(member.begins for member in family.members)
    first = "BEGINS" if by_time else "SIZE"
    rows = plain_table(
        first, "MEMBER", "MEANS", "LOADED", "ANSWERS IN", "", title=f"[bold]{family.name}[/]"
    )
    for number, member in enumerate(family.members):
        rows.add_row(
            member.begins or str(number + 1),
            escape(member.model),
            escape(member.version) or "-",
            str(member.loaded) if member.version else "-",
            f"{member.answer_ms:.1f} ms" if member.answer_ms else "-",
            _remark(member, by_time),
        )
    facts = [family.task]
    if family.within_s:
        facts.append(f"within {family.within_s:g} s")
    if by_time:
        where = f" at {family.place[0]:g},{family.place[1]:g}" if family.place else ""
        facts.append(f"until {local_time(family.until_unix_s, family.time_zone)}{where}")
    rows.caption = escape("; ".join(facts))
    rows.caption_justify = "left"
    return rows


def _remark(member: FamilyMember, by_time: bool) -> str:
    if member.left_out:
        return f"[red]{escape(member.left_out)}[/]"
    if not member.first_choice:
        return ""
    return "[green]now[/]" if by_time else "[green]largest loaded[/]"

"""The rules between the keys of records that stand alone. Pure.

What is wrong is told with the key that it is of.
"""

from collections.abc import Iterable

from yolopool.client.fleet_file.declared import (
    Family,
    Fleet,
    Gate,
    Place,
    Schedule,
    StoreRule,
    Watch,
)
from yolopool.client.fleet_file.sections.section_plan import SECTIONS
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.fleet_file.text.wrong import DIGEST, STORED, Wrong, refused
from yolopool.client.sources import fetched
from yolopool.names import check_name, parse_ref


def check_sections(fleet: Fleet, faults: Faults) -> None:
    for section in SECTIONS:
        lines: dict[str, int] = {}
        for index, record in enumerate(section.of(fleet) or ()):
            where, name = f"{section.name}[{index}]", section.told(record)
            for key, why in (*_wrong(record), *_outside(section.about(record), fleet.prefix)):
                named = key or section.told_by
                faults.add(record.at.get(named, record.line), f"{where}.{named}", why)
            before = lines.setdefault(name, record.line)
            if before != record.line:
                faults.add(record.line, where, f"{name} is there already, in line {before}")
    _check_alias_names(fleet, faults)


def _check_alias_names(fleet: Fleet, faults: Faults) -> None:
    lines = {alias.name: alias.line for alias in fleet.aliases or ()}
    for index, family in enumerate(fleet.families or ()):
        if family.name in lines:
            why = f"{family.name} is an alias already, in line {lines[family.name]}"
            faults.add(family.line, f"families[{index}]", why)


def _outside(names: Iterable[str], prefix: str) -> Wrong:
    for name in names:
        if not name.startswith(prefix):
            yield "", f"{name} does not begin with the file's prefix {prefix}"


def _wrong(record: object) -> Wrong:
    match record:
        case Schedule():
            yield from _wrong_schedule(record)
        case Family():
            yield from _wrong_family(record)
        case Gate():
            yield from _wrong_gate(record)
        case StoreRule():
            if not (record.keep_versions or record.store_bytes):
                yield "pattern", "give keep_versions or store_bytes, above 0"
        case Watch():
            yield from refused("model", check_name, record.model)
            if not fetched.is_uri(record.uri):
                yield "uri", "give file:///folder/ or s3://bucket/prefix/"
            if record.profile and not record.uri.lower().startswith("s3://"):
                yield "profile", "only s3:// has credentials of the control planes: leave this out"


def _wrong_schedule(schedule: Schedule) -> Wrong:
    if bool(schedule.cron) == bool(schedule.sun):
        yield "cron", "give cron or sun, one of them"
    yield from _wrong_place("sun" if schedule.sun else "", schedule.place)
    if not (schedule.load or schedule.release):
        yield "load", "give models to load, to release, or both"
    named = [("load", one.model) for one in schedule.load]
    for where, reference in (*named, *(("release", name) for name in schedule.release)):
        yield from refused(where, parse_ref, reference)


def _wrong_place(sun: str, place: Place | None) -> Wrong:
    """`sun`: the key that asks for a place; empty: none does."""
    if sun and place is None:
        yield sun, "the sun needs a place: give place with its latitude and longitude"
    if place is not None and not sun:
        yield "place", "only what begins by the sun has a place: leave this out"


def _wrong_family(family: Family) -> Wrong:
    yield from refused("name", parse_ref, family.name)
    if ":" not in family.name:
        yield "name", f"{family.name!r} is no alias: give model:name"
    if len(family.members) < 2:
        yield "members", "give two or more"
    for member in family.members:
        yield from refused("members", parse_ref, member.model)
    begins = [one.begins for one in family.members if one.begins]
    if begins and len(begins) < len(family.members):
        yield "members", "say of each when it begins, or of none: then the size decides"
    if len(set(begins)) < len(begins):
        yield "members", "two begin at the same time"
    if begins and family.within_s:
        yield "within_s", "it goes with members by size: leave this out"
    by_sun = [text for text in begins if text[0].isalpha()]
    yield from _wrong_place("members" if by_sun else "", family.place)


def _wrong_gate(gate: Gate) -> Wrong:
    yield from refused("model", check_name, gate.model)
    if not (gate.min_map50_95 or gate.min_map50):
        yield "min_map50_95", "give min_map50_95 or min_map50, above 0"
    stored = gate.data.removeprefix(STORED)
    if not stored or (stored != gate.data and not DIGEST.fullmatch(stored)):
        yield "data", "give a folder, a zip, or sha256: and 64 lower-case hexadecimal digits"

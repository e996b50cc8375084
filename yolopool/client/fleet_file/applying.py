"""Client methods that plan and apply a fleet file, each a flow of calls that others make too."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from yolopool.client.fleet_file.application.outcome import Applied, FleetPlan, Told
from yolopool.client.fleet_file.application.section_calls import there
from yolopool.client.fleet_file.application.section_work import SectionWork
from yolopool.client.fleet_file.application.step_calls import running_call, versions_call
from yolopool.client.fleet_file.application.version_work import VersionWork
from yolopool.client.fleet_file.declared import Fleet
from yolopool.client.fleet_file.digest_cache import DigestCache, usual_place
from yolopool.client.fleet_file.parsing import invalid, parse_fleet
from yolopool.client.fleet_file.planning import Entry, plan
from yolopool.client.fleet_file.present import Present, PresentVersion
from yolopool.client.fleet_file.resolving import Resolver
from yolopool.client.fleet_file.sections.section_plan import (
    FAMILIES,
    GATES,
    SCHEDULES,
    SECTIONS,
    STORE,
    WATCHES,
)
from yolopool.client.fleet_file.text.reading import Faults
from yolopool.client.rollout import alias_records
from yolopool.client.uploads import FileWork, Flow, Sleep

APPLY_TIMEOUT_S, POLL_S = 3600.0, 0.5


def plan_fleet(file: str | Path, *, prune: bool = False) -> Flow[FleetPlan]:
    """Compares a fleet file with the pool; "-" is standard input. With `prune` what the file does
    not name is to be deleted, of the sections that it has. Changes nothing.

    Raises FleetFileInvalid, whose message names file, line and key of each fault.
    """
    name = str(file)
    folder = Path() if name == "-" else Path(file).parent
    data: bytes = yield FileWork(partial(_read, name))
    fleet: Fleet = yield FileWork(partial(parse_fleet, data, name))
    faults = Faults()
    resolver = Resolver(folder, DigestCache(usual_place(), time.time()))
    fleet = yield FileWork(partial(resolver.settled, fleet, faults))
    entries: list[Entry] = yield FileWork(partial(resolver.entries, fleet, faults))
    if faults.count:
        raise invalid(faults, name)
    present = yield from _present(fleet)
    planned = plan(fleet, entries, present, faults, prune=prune)
    if faults.count:
        raise invalid(faults, name)
    return FleetPlan(name, planned, fleet.prefix, resolver)


def apply_fleet(
    planned: FleetPlan,
    *,
    wait: bool = False,
    told: Told | None = None,
    timeout_s: float = APPLY_TIMEOUT_S,
) -> Flow[Applied]:
    """Does what `plan_fleet` planned, and calls `told` with each step. Repeating both changes
    nothing.

    With `wait`, returns when all is imported, built and loaded as the file says. What fails ends
    nothing but its own version; nothing is deleted then.
    """
    applied, said = Applied(), told or (lambda text: None)
    versions = VersionWork(planned, applied, said)
    sections = SectionWork(planned, applied, said)
    until = time.monotonic() + timeout_s
    yield from sections.room()
    yield from sections.set_all((GATES,))
    yield from versions.register()
    yield from versions.advance()
    while wait and versions.waiting() and time.monotonic() < until:
        yield Sleep(POLL_S)
        yield from versions.look()
        yield from versions.advance()
    versions.close(wait)
    yield from sections.drop()
    yield from sections.aliases(wait, until)
    yield from sections.set_all((FAMILIES, SCHEDULES, WATCHES))
    yield from sections.set_all((STORE,))
    yield from sections.delete(versions.waiting())
    return applied


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _present(fleet: Fleet) -> Flow[Present]:
    """What the pool has of the file's sections: nobody is asked about the others."""
    versions: Sequence[PresentVersion] = ()
    if fleet.models is not None or fleet.aliases:  # an alias may be of the pool's newest
        versions = yield versions_call(fleet.prefix)
    aliases, rolling = None, dict[str, int]()
    if fleet.aliases is not None:
        aliases = yield alias_records.aliases(fleet.prefix)
        rolling = yield running_call(fleet.prefix)
    found: dict[str, Any] = {}
    for section in SECTIONS:
        if section.of(fleet) is not None:
            found[section.name] = yield from there(section, fleet.prefix)
    return Present(tuple(versions), aliases, rolling, **found)

"""What a store that lost a part, or all, is filled with: what is left of it, and a copy. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.store.transaction import ImportJob
from control_plane.store.transactions import requeued
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.desired import Desired, Want
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey
from yolopool.names import is_build

# Maps of `Desired`; a store also has the jobs of its import queue.
MAPS = (
    "versions",
    "wants",
    "cordons",
    "schedules",
    "numbers",
    "api_keys",
    "tenants",
    "aliases",
    "rules",
    "watches",
    "alerts",
)  # fmt: skip
PARTS = (*MAPS, "jobs")


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a store, read at once; None: lost. Of a store without a cluster id every part
    that is not there counts as lost.
    """

    cluster: str = ""
    revision: int = 0
    mark: str = ""
    versions: Mapping[VersionKey, ModelVersion] | None = None
    wants: Mapping[VersionKey, Want] | None = None
    cordons: Mapping[str, str] | None = None
    schedules: Mapping[str, Schedule] | None = None
    numbers: Mapping[str, int] | None = None
    api_keys: Mapping[str, ApiKey] | None = None
    tenants: Mapping[str, Tenant] | None = None
    aliases: Mapping[AliasKey, Alias] | None = None
    rules: Mapping[str, ModelRule] | None = None
    watches: Mapping[str, Watch] | None = None
    alerts: Mapping[str, AlertSetting] | None = None
    jobs: Mapping[VersionKey, ImportJob] | None = None


@dataclass(frozen=True, slots=True)
class Salvage:
    """The state that the store must hold; `written`: the parts that it does not hold so."""

    desired: Desired
    jobs: Mapping[VersionKey, ImportJob]
    written: tuple[str, ...]


def lost_parts(remains: Remains) -> tuple[str, ...]:
    return tuple(part for part in PARTS if getattr(remains, part) is None)


def lacking(found: Desired | Remains, copy: Desired) -> tuple[str, ...]:
    """The maps that hold less than a copy of the very same revision."""
    if (found.cluster, found.revision, found.mark) != (copy.cluster, copy.revision, copy.mark):
        return ()
    pairs = [(name, getattr(found, name), getattr(copy, name)) for name in MAPS]
    return tuple(
        name for name, here, there in pairs if here is not None and not there.keys() <= here.keys()
    )


def salvaged(remains: Remains, copy: Desired | None) -> Salvage | None:
    """What is left, and the copy's where it is lost: nothing is written where nothing is lost.
    None: neither has it; a copy of another store has nothing of this one.
    """
    if copy is not None and remains.cluster not in ("", copy.cluster):
        copy = None
    lost = {*lost_parts(remains), *(lacking(remains, copy) if copy is not None else ())}
    if copy is None and (not remains.cluster or lost - {"jobs"}):
        return None
    kept: dict[str, Any] = {
        name: getattr(copy if name in lost else remains, name) or {} for name in MAPS
    }
    known = [kept["versions"], *([copy.versions] if copy is not None else [])]
    kept["numbers"] = _highest(
        [kept["numbers"], *([copy.numbers] if copy is not None else [])],
        (key for versions in known for key in versions if not is_build(key.model)),
    )
    # A version may be newer than the copy that the rest is taken from.
    kept["wants"] = {key: want for key, want in kept["wants"].items() if key in kept["versions"]}
    queued, jobs = remains.jobs or {}, requeued(kept["versions"].values())
    kept["jobs"] = {key: queued.get(key, job) for key, job in jobs.items()}
    written = tuple(part for part in PARTS if kept[part] != getattr(remains, part))
    if remains.cluster and not lost:
        written = ()
    revision = max(remains.revision, copy.revision if copy is not None else 0)
    cluster = remains.cluster or (copy.cluster if copy is not None else "")
    jobs = kept.pop("jobs")
    return Salvage(Desired(revision + 1, cluster, **kept), jobs, written)


def _highest(numbers: Iterable[Mapping[str, int]], keys: Iterable[VersionKey]) -> dict[str, int]:
    """The highest number of each name: no number is ever given twice."""
    found: dict[str, int] = {}
    for known in numbers:
        for name, number in known.items():
            found[name] = max(number, found.get(name, 0))
    for key in keys:
        found[key.model] = max(key.number, found.get(key.model, 0))
    return found

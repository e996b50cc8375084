"""Desired state as this process knows it: what it read from the store, and its own writes until a
read includes them. Pure.

The maps are changed in place, so that the cost of a change does not grow with the state.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from control_plane.types.desired import Desired, DesiredDelta, Want
from control_plane.types.schedule import Schedule
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.view.catalogue import Catalogue

Key = TypeVar("Key")
Value = TypeVar("Value")

NOTHING = Desired(revision=-1, cluster="", versions={}, wants={})
_ORDER = (VersionState.UPLOADED, VersionState.IMPORTING, VersionState.READY, VersionState.FAILED)


@dataclass(slots=True)
class _Own:
    """An own write, the revision known when it was made, and what was last read of the version."""

    version: ModelVersion
    revision: int
    read: ModelVersion | None


class DesiredCache:
    """The maps of `desired` change in place: keep no reference to them. `frozen` is a value."""

    def __init__(self) -> None:
        self.desired = NOTHING
        self.catalogue = Catalogue()
        self._versions: dict[VersionKey, ModelVersion] = {}
        self._wants: dict[VersionKey, Want] = {}
        self._cordons: dict[str, str] = {}
        self._schedules: dict[str, Schedule] = {}
        self._numbers: dict[str, int] = {}
        self._own: dict[VersionKey, _Own] = {}
        self._frozen: Desired | None = None

    @property
    def is_loaded(self) -> bool:
        return self.desired is not NOTHING

    def frozen(self) -> Desired:
        """Desired state as a value. It is copied at most once per change."""
        if self._frozen is None:
            self._frozen = replace(
                self.desired,
                versions=dict(self._versions),
                wants=dict(self._wants),
                cordons=dict(self._cordons),
                schedules=dict(self._schedules),
                numbers=dict(self._numbers),
            )
        return self._frozen

    def take_all(self, read: Desired) -> None:
        """Replaces everything by what was read, except own writes that are ahead of it."""
        if self._is_other(read):
            self._own.clear()  # of another store, or of one that lost them
        self._age(read.revision)
        versions = dict(read.versions)
        for key, own in self._own.items():
            own.read = versions.get(key)
            versions[key] = _ahead(own)
        wants = dict(read.wants)
        self._versions, self._wants = versions, wants
        self._cordons, self._numbers = dict(read.cordons), dict(read.numbers)
        self._schedules = dict(read.schedules)
        self.catalogue = Catalogue(versions.values())
        self.desired = replace(
            read,
            versions=versions,
            wants=wants,
            cordons=self._cordons,
            schedules=self._schedules,
            numbers=self._numbers,
        )
        self._frozen = None

    def take(self, changes: DesiredDelta) -> set[VersionKey]:
        """Applies what was written since. Returns the keys of the versions that it concerns."""
        news = self._age(changes.revision)
        for key, read in changes.versions.items():
            own = self._own.get(key)
            if own is not None:
                own.read = read
                self._show(own.version.key, _ahead(own))
            else:
                self._show(key, read)
        for wanted, want in changes.wants.items():
            _apply(self._wants, wanted, want)
        for worker, incarnation in changes.cordons.items():
            _apply(self._cordons, worker, incarnation)
        for schedule_name, schedule in changes.schedules.items():
            _apply(self._schedules, schedule_name, schedule)
        for name, number in changes.numbers.items():
            _apply(self._numbers, name, number)
        news |= changes.versions.keys() | changes.wants.keys()
        self.desired = replace(self.desired, revision=changes.revision, mark=changes.mark)
        self._frozen = None
        return news

    def put_version(self, version: ModelVersion) -> None:
        """Shows an own write before the store reports it."""
        key = version.key
        before = self._own.get(key)
        read = before.read if before is not None else self._versions.get(key)
        self._own[key] = _Own(version, self.desired.revision, read)
        self._show(key, version)
        self._frozen = None

    def drop_versions(self, keys: Iterable[VersionKey]) -> None:
        for key in keys:
            self._own.pop(key, None)
            self._show(key, None)
            self._wants.pop(key, None)
        self._frozen = None

    def put_want(self, want: Want) -> None:
        self._wants[want.key] = want
        self._frozen = None

    def drop_want(self, key: VersionKey) -> None:
        self._wants.pop(key, None)
        self._frozen = None

    def put_schedule(self, name: str, schedule: Schedule | None) -> None:
        """None: it was removed."""
        _apply(self._schedules, name, schedule)
        self._frozen = None

    def put_cordon(self, worker: str, incarnation: str) -> None:
        self._cordons[worker] = incarnation
        self._frozen = None

    def _is_other(self, read: Desired) -> bool:
        """Whether the store is another one, or lost writes that were known here."""
        known = self.desired
        if read.cluster != known.cluster or read.revision < known.revision:
            return True
        return read.revision == known.revision and read.mark != known.mark

    def _age(self, revision: int) -> set[VersionKey]:
        """Drops own writes that a read of this revision includes for certain. A read may have begun
        before a write, or between the two writes that one call makes. Returns their keys.
        """
        old = {key for key, own in self._own.items() if revision > own.revision + 1}
        for key in old:
            self._show(key, self._own.pop(key).read)
        return old

    def _show(self, key: VersionKey, version: ModelVersion | None) -> None:
        if version is None:
            self._versions.pop(key, None)
            self.catalogue.drop(key)
        elif self._versions.get(key) is not version:
            self._versions[key] = version
            self.catalogue.put(version)


def _ahead(own: _Own) -> ModelVersion:
    """The own write or what was read, whichever is further in the life of the version."""
    behind = own.read is None or _rank(own.read) < _rank(own.version)
    return own.version if behind or own.read is None else own.read


def _rank(version: ModelVersion) -> tuple[int, float]:
    """How far a version is in its life."""
    return (_ORDER.index(version.state), version.progress)


def _apply(held: dict[Key, Value], key: Key, value: Value | None) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value

"""Desired state as this process last read it from the store. Pure.

The maps are changed in place, so that the cost of a change does not grow with the state.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from control_plane.store.signed import Admit, as_it_is
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.desired import Desired, DesiredDelta, Want
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.view.catalogue import Catalogue

Key = TypeVar("Key")
Value = TypeVar("Value")

NOTHING = Desired(revision=-1, cluster="", versions={}, wants={})


class DesiredCache:
    """The maps of `desired` change in place: keep no reference to them. `frozen` is a value of what
    was read; `desired` and the catalogue show each version as `admit` says.
    """

    def __init__(self, admit: Admit = as_it_is) -> None:
        self.desired = NOTHING
        self.catalogue = Catalogue()
        self._admit = admit
        self._versions: dict[VersionKey, ModelVersion] = {}
        self._shown: dict[VersionKey, ModelVersion] = {}
        self._wants: dict[VersionKey, Want] = {}
        self._cordons: dict[str, str] = {}
        self._schedules: dict[str, Schedule] = {}
        self._numbers: dict[str, int] = {}
        self._api_keys: dict[str, ApiKey] = {}
        self._tenants: dict[str, Tenant] = {}
        self._aliases: dict[AliasKey, Alias] = {}
        self._rules: dict[str, ModelRule] = {}
        self._watches: dict[str, Watch] = {}
        self._alerts: dict[str, AlertSetting] = {}
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
                api_keys=dict(self._api_keys),
                tenants=dict(self._tenants),
                aliases=dict(self._aliases),
                rules=dict(self._rules),
                watches=dict(self._watches),
                alerts=dict(self._alerts),
            )
        return self._frozen

    def take_all(self, read: Desired) -> None:
        """Replaces everything by what was read."""
        self._versions, self._wants = dict(read.versions), dict(read.wants)
        self._shown = {key: self._admit(version) for key, version in read.versions.items()}
        self._cordons, self._numbers = dict(read.cordons), dict(read.numbers)
        self._schedules, self._api_keys = dict(read.schedules), dict(read.api_keys)
        self._tenants, self._aliases = dict(read.tenants), dict(read.aliases)
        self._rules = dict(read.rules)
        self._watches = dict(read.watches)
        self._alerts = dict(read.alerts)
        self.catalogue = Catalogue(self._shown.values(), self._aliases, self._rules)
        self.desired = replace(
            read,
            versions=self._shown,
            wants=self._wants,
            cordons=self._cordons,
            schedules=self._schedules,
            numbers=self._numbers,
            api_keys=self._api_keys,
            tenants=self._tenants,
            aliases=self._aliases,
            rules=self._rules,
            watches=self._watches,
            alerts=self._alerts,
        )
        self._frozen = None

    def take(self, changes: DesiredDelta) -> set[VersionKey]:
        """Applies what was written since. Returns the keys of the versions that it concerns."""
        for key, version in changes.versions.items():
            self._show(key, version)
        _apply(self._wants, changes.wants)
        _apply(self._cordons, changes.cordons)
        _apply(self._schedules, changes.schedules)
        _apply(self._numbers, changes.numbers)
        _apply(self._api_keys, changes.api_keys)
        _apply(self._tenants, changes.tenants)
        _apply(self._aliases, changes.aliases)
        _apply(self._watches, changes.watches)
        _apply(self._alerts, changes.alerts)
        _apply(self._rules, changes.rules)
        for pattern in changes.rules:
            self.catalogue.regard(pattern)
        self.desired = replace(self.desired, revision=changes.revision, mark=changes.mark)
        self._frozen = None
        return changes.versions.keys() | changes.wants.keys()

    def _show(self, key: VersionKey, version: ModelVersion | None) -> None:
        if version is None:
            self._versions.pop(key, None)
            self._shown.pop(key, None)
            self.catalogue.drop(key)
        elif self._versions.get(key) is not version:
            self._versions[key] = version
            self._shown[key] = self._admit(version)
            self.catalogue.put(self._shown[key])


def _apply(held: dict[Key, Value], changes: Mapping[Key, Value | None]) -> None:
    for key, value in changes.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value

"""The models and versions that callers may name, and the version a reference means now. Pure.

Kept by name, so that a request costs two dictionary look-ups and a change touches one name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.rollout.family import Family
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from yolopool.errors import (
    AliasNotFound,
    InvalidFamily,
    ModelImportFailed,
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
    YolopoolError,
)
from yolopool.names import ModelRef, base_name, is_build, parse_ref


class NotUsable(NamedTuple):
    """Why a member of a family can't answer."""

    error: YolopoolError


class Catalogue:
    """Versions by name, newest first. `aliases` and `rules`: live maps, only read here."""

    def __init__(
        self,
        versions: Iterable[ModelVersion] = (),
        aliases: Mapping[AliasKey, Alias] = MappingProxyType({}),
        rules: Mapping[str, ModelRule] = MappingProxyType({}),
    ) -> None:
        self._aliases = aliases
        self._rules = rules
        self._versions = {version.key: version for version in versions}
        by_name: dict[str, list[ModelVersion]] = {}
        for version in self._versions.values():
            by_name.setdefault(version.key.model, []).append(version)
        self._models: dict[str, tuple[ModelVersion, ...]] = {}
        self._defaults: dict[str, ModelVersion | None] = {}
        for name, found in by_name.items():
            self._set(name, found)

    @property
    def models(self) -> Mapping[str, tuple[ModelVersion, ...]]:
        return self._models

    def count(self) -> int:
        """How many models there are, without their builds."""
        return sum(not is_build(name) for name in self._models)

    def names(self) -> list[str]:
        """The models, without their builds."""
        return sorted(name for name in self._models if not is_build(name))

    def ready_names(self) -> list[str]:
        """Those of `names` that may be asked by name alone."""
        return [name for name in self.names() if self._defaults[name] is not None]

    def put(self, version: ModelVersion) -> None:
        """Adds or replaces a version."""
        name = version.key.model
        self._versions[version.key] = version
        others = [other for other in self._models.get(name, ()) if other.key != version.key]
        self._set(name, [*others, version])

    def drop(self, key: VersionKey) -> None:
        self._versions.pop(key, None)
        others = [other for other in self._models.get(key.model, ()) if other.key != key]
        if others:
            self._set(key.model, others)
        else:
            self._models.pop(key.model, None)
            self._defaults.pop(key.model, None)

    def _set(self, name: str, versions: list[ModelVersion]) -> None:
        newest_first = tuple(sorted(versions, key=lambda version: -version.key.number))
        self._models[name] = newest_first
        ready = [version for version in newest_first if version.state is VersionState.READY]
        rule = self._rules.get(name)
        gate = rule.gate if rule is not None else None
        passed = (
            version
            for version in ready
            if gate is None or not gate.holds_back(version.validation, version.created_unix_s)
        )
        # Where none may, the newest answers all the same: a gate takes no model out of service.
        self._defaults[name] = next(passed, ready[0] if ready else None)

    def regard(self, name: str) -> None:
        """Looks again at a model whose rule changed."""
        if name in self._models:
            self._set(name, list(self._models[name]))

    def default(self, name: str) -> ModelVersion | None:
        """The version that a bare name means: the newest READY one that its gate does not hold
        back; if it holds back all, the newest.
        """
        return self._defaults.get(name)

    def versions(self, ref: ModelRef) -> tuple[ModelVersion, ...]:
        """All versions of a bare name, newest first, those that an alias means now, or the one
        version that the reference names. Of a family those of all members that can answer.

        Raises ModelNotFound, VersionNotFound or AliasNotFound.
        """
        family = self.family(ref)
        if family is not None:
            usable = {m.key: m for m in self.members(family) if isinstance(m, ModelVersion)}
            return tuple(usable.values()) or (self._of_family(family),)
        versions = self._models.get(ref.name)
        if versions is None:
            raise ModelNotFound(self._unknown(ref.name))
        if ref.alias is not None:
            numbers = sorted((one.version for one in self.alias(ref).targets), reverse=True)
            refs = [ModelRef(ref.name, number) for number in numbers]
            return tuple(version for one in refs for version in self.versions(one))
        if ref.version is None:
            return versions
        version = self._versions.get(VersionKey(ref.name, ref.version))
        if version is None:
            there = ", ".join(str(v.key.number) for v in versions[:10])
            raise VersionNotFound(f"{ref} does not exist: {ref.name} has version {there}")
        return (version,)

    def alias(self, ref: ModelRef) -> Alias:
        """The alias that a reference names. Raises ModelNotFound or AliasNotFound."""
        # A plain tuple is as good a key, and made in no time: each request asks.
        key: Any = (ref.name, ref.alias)
        found = self._aliases.get(key)
        if found is not None:
            return found
        model = base_name(ref.name)
        found = self._aliases.get(AliasKey(model, ref.alias or ""))
        if found is not None and found.family is not None and is_build(ref.name):
            raise AliasNotFound(f"{found.key} is a family, which has no builds: use {found.key}")
        if found is not None:
            return found
        if ref.name not in self._models:
            raise ModelNotFound(self._unknown(ref.name))
        there = ", ".join(sorted(str(key) for key in self._aliases if key.model == model))
        raise AliasNotFound(
            f"{model} has no alias {ref.alias!r}: use {there or model} or {model}@<version>"
        )

    def family(self, ref: ModelRef) -> Alias | None:
        """The alias that a reference names, if that is a family."""
        if ref.alias is None:
            return None
        key: Any = (ref.name, ref.alias)  # as in `alias`
        alias = self._aliases.get(key)
        return alias if alias is not None and alias.family is not None else None

    def behind(self, reference: str) -> frozenset[str]:
        """The names of the models that may answer for a reference, which need not be a valid one:
        of a family those of its members.
        """
        met: set[str] = set()
        asked = [reference] if ":" in reference else []
        while asked:
            model, _, name = asked.pop().partition(":")
            alias = self._aliases.get(AliasKey(base_name(model), name))
            if alias is not None and alias.family is not None:
                new = set(alias.family.models) - met
                met |= new
                asked += new
        return frozenset(parse_ref(member).name.partition("+")[0] for member in met)

    def members(self, alias: Alias, inside: bool = False) -> tuple[ModelVersion | NotUsable, ...]:
        """What each member of a family means now, in order: of a member that is a family one of
        its own, or why it can't answer. `inside`: this one is such a member.
        """
        family = alias.family
        assert family is not None, "it is a family"
        return tuple(self._member(family, model, inside) for model in family.models)

    def _member(self, family: Family, model: str, inside: bool) -> ModelVersion | NotUsable:
        try:
            ref = parse_ref(model)
            inner = self.family(ref)
            # So that none goes in a circle: a part of the day may be a family of sizes.
            if inner is not None and (inside or family.is_by_size or not _is_by_size(inner)):
                raise InvalidFamily(f"{model} is a family itself: name a model, or set it anew")
            version = self.ready(ref) if inner is None else self._of_family(inner, inside=True)
        except YolopoolError as error:
            return NotUsable(error)
        fault = family.misfit(version)
        return NotUsable(InvalidFamily(fault)) if fault else version

    def _of_family(self, alias: Alias, inside: bool = False) -> ModelVersion:
        """The largest member that can answer; of one by the time of day the first. Raises why none
        can.
        """
        found = self.members(alias, inside)
        order = tuple(reversed(found)) if _is_by_size(alias) else found
        for one in order:
            if isinstance(one, ModelVersion):
                return one
        assert isinstance(order[0], NotUsable), "no version was found"
        raise order[0].error

    def find(self, ref: ModelRef, point: int | None = None) -> ModelVersion:
        """The version that a reference means, READY or not: the default, else the newest.

        Of an alias with several targets the one at `point`, 0 to 999, as `Alias.drawn` says; None:
        the one with the largest weight. Of a family its largest member, or that of the first part
        of the day: which one answers a request is chosen at each.
        """
        if ref.alias is not None:
            alias = self.alias(ref)
            if alias.family is not None:
                return self._of_family(alias)
            number = alias.main if point is None else alias.drawn(point)
            found = self._versions.get(VersionKey(ref.name, number))
            if found is not None:
                return found
            ref = ModelRef(ref.name, number)
        if ref.version is None and is_build(ref.name):
            # A bare build means the build of the version that the bare model means.
            base = self._defaults.get(base_name(ref.name))
            if base is not None:
                ref = replace(ref, version=base.key.number)
        versions = self.versions(ref)
        return (self._defaults.get(ref.name) if ref.version is None else None) or versions[0]

    def meant(self, ref: ModelRef) -> tuple[ModelVersion, ...]:
        """All versions that a reference means, READY or not: that of `find`, and of an alias with
        several targets the others after it.
        """
        main = self.find(ref)
        if ref.alias is None:
            return (main,)
        others = (version for version in self.versions(ref) if version is not main)
        return (main, *others)

    def ready(self, ref: ModelRef, point: int | None = None) -> ModelVersion:
        """The READY version that a reference means; `point` as in `find`.

        Raises what `versions` raises, ModelNotReady before its import ends, ModelImportFailed.
        """
        version = self.find(ref, point)
        if version.state is VersionState.READY:
            return version
        if version.state is VersionState.FAILED:
            raise ModelImportFailed(
                f"{version.key} can't be used: its import failed with {version.reason}: "
                f"{version.message}",
                details={"import_reason": version.reason},
            )
        step = f", {version.step} {version.progress:.0%}" if version.step else ""
        raise ModelNotReady(
            f"{version.key} is {version.state}{step}: try again when it is READY",
            retry_after_s=1.0,
        )

    def _unknown(self, name: str) -> str:
        known = [model for model in self._models if is_build(model) == is_build(name)]
        close = get_close_matches(name, known, n=3, cutoff=0.6)
        if close:
            return f"there is no model {name!r}: did you mean {' or '.join(close)}?"
        if not self._models:
            return f"there is no model {name!r}: none is registered yet"
        return f"there is no model {name!r}: list the models to see their names"


def _is_by_size(alias: Alias) -> bool:
    return alias.family is not None and alias.family.is_by_size

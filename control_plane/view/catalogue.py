"""The models and versions that callers may name, and the version a reference means now. Pure.

Kept by name, so that a request costs two dictionary look-ups and a change touches one name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType

from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from yolopool.errors import (
    AliasNotFound,
    ModelImportFailed,
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
)
from yolopool.names import ModelRef, base_name, is_build


class Catalogue:
    """Versions by name, newest first. `aliases`: a live map, which is only read here."""

    def __init__(
        self,
        versions: Iterable[ModelVersion] = (),
        aliases: Mapping[AliasKey, Alias] = MappingProxyType({}),
    ) -> None:
        self._aliases = aliases
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
        ready = (version for version in newest_first if version.state is VersionState.READY)
        self._defaults[name] = next(ready, None)

    def default(self, name: str) -> ModelVersion | None:
        """The version that a bare name means: the newest READY one."""
        return self._defaults.get(name)

    def versions(self, ref: ModelRef) -> tuple[ModelVersion, ...]:
        """All versions of a bare name, newest first, those that an alias means now, or the one
        version that the reference names.

        Raises ModelNotFound, VersionNotFound or AliasNotFound.
        """
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
        model = base_name(ref.name)
        found = self._aliases.get(AliasKey(model, ref.alias or ""))
        if found is not None:
            return found
        if ref.name not in self._models:
            raise ModelNotFound(self._unknown(ref.name))
        there = ", ".join(sorted(str(key) for key in self._aliases if key.model == model))
        raise AliasNotFound(
            f"{model} has no alias {ref.alias!r}: use {there or model} or {model}@<version>"
        )

    def find(self, ref: ModelRef, point: int | None = None) -> ModelVersion:
        """The version that a reference means, READY or not: the default, else the newest.

        Of an alias with several targets the one at `point`, 0 to 999, as `Alias.drawn` says; None:
        the one with the largest weight.
        """
        if ref.alias is not None:
            alias = self.alias(ref)
            ref = ModelRef(ref.name, alias.main if point is None else alias.drawn(point))
        if ref.version is None and is_build(ref.name):
            # A bare build means the build of the version that the bare model means.
            base = self._defaults.get(base_name(ref.name))
            if base is not None:
                ref = replace(ref, version=base.key.number)
        versions = self.versions(ref)
        return (self._defaults.get(ref.name) if ref.version is None else None) or versions[0]

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

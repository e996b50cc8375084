"""What callers may name: models, versions, and what a reference means now. Pure.

Kept beside the versions, one name at a time, so that a request costs two dictionary look-ups and
a change those of its own name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

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
    """Versions by name, newest first."""

    def __init__(self, versions: Iterable[ModelVersion] = ()) -> None:
        self._versions = {version.key: version for version in versions}
        by_name: dict[str, list[ModelVersion]] = {}
        for version in self._versions.values():
            by_name.setdefault(version.key.model, []).append(version)
        self._models: dict[str, tuple[ModelVersion, ...]] = {}
        self._defaults: dict[str, ModelVersion | None] = {}
        for name, all_of_it in by_name.items():
            self._set(name, all_of_it)

    @property
    def models(self) -> Mapping[str, tuple[ModelVersion, ...]]:
        return self._models

    def count(self) -> int:
        """Models; builds of them are none."""
        return sum(not is_build(name) for name in self._models)

    def put(self, version: ModelVersion) -> None:
        """Adds a version, or takes it for what was known of it."""
        name = version.key.model
        self._versions[version.key] = version
        others = [one for one in self._models.get(name, ()) if one.key != version.key]
        self._set(name, [*others, version])

    def drop(self, key: VersionKey) -> None:
        self._versions.pop(key, None)
        others = [one for one in self._models.get(key.model, ()) if one.key != key]
        if others:
            self._set(key.model, others)
        else:
            self._models.pop(key.model, None)
            self._defaults.pop(key.model, None)

    def _set(self, name: str, versions: list[ModelVersion]) -> None:
        newest_first = tuple(sorted(versions, key=lambda one: -one.key.number))
        self._models[name] = newest_first
        ready = (one for one in newest_first if one.state is VersionState.READY)
        self._defaults[name] = next(ready, None)

    def default(self, name: str) -> ModelVersion | None:
        """The version that a bare name means: the newest READY one."""
        return self._defaults.get(name)

    def versions(self, ref: ModelRef) -> tuple[ModelVersion, ...]:
        """All versions of a bare name, newest first, or the one that is named.

        Raises ModelNotFound, VersionNotFound or AliasNotFound.
        """
        versions = self._models.get(ref.name)
        if versions is None:
            raise ModelNotFound(self._unknown(ref.name))
        if ref.alias is not None:
            raise AliasNotFound(
                f"{ref.name} has no alias {ref.alias!r}: use {ref.name} or {ref.name}@<version>"
            )
        if ref.version is None:
            return versions
        version = self._versions.get(VersionKey(ref.name, ref.version))
        if version is None:
            there = ", ".join(str(v.key.number) for v in versions[:10])
            raise VersionNotFound(f"{ref} does not exist: {ref.name} has version {there}")
        return (version,)

    def find(self, ref: ModelRef) -> ModelVersion:
        """The version a reference means, ready or not: the default, else the newest."""
        if ref.version is None and is_build(ref.name):
            # Of the version that the model's own name means.
            base = self._defaults.get(base_name(ref.name))
            if base is not None:
                ref = replace(ref, version=base.key.number)
        versions = self.versions(ref)
        return (self._defaults.get(ref.name) if ref.version is None else None) or versions[0]

    def ready(self, ref: ModelRef) -> ModelVersion:
        """The READY version a reference means.

        Raises what `versions` raises, ModelNotReady while it is imported and ModelImportFailed.
        """
        version = self.find(ref)
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
        known = [one for one in self._models if is_build(one) == is_build(name)]
        close = get_close_matches(name, known, n=3, cutoff=0.6)
        if close:
            return f"there is no model {name!r}: did you mean {' or '.join(close)}?"
        if not self._models:
            return f"there is no model {name!r}: none is registered yet"
        return f"there is no model {name!r}: list the models to see their names"

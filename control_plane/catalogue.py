"""What callers may name: models, versions, and what a reference means now. Pure.

Built anew whenever desired state changes, so that a request costs two dictionary look-ups.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from control_plane.fleet import Desired, ModelVersion, VersionKey, VersionState
from yolopool.errors import (
    AliasNotFound,
    ModelImportFailed,
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
)
from yolopool.names import ModelRef


class Catalogue:
    """Versions by name, newest first."""

    def __init__(self, desired: Desired) -> None:
        by_name: dict[str, list[ModelVersion]] = {}
        for key in sorted(desired.versions, key=lambda key: (key.model, -key.number)):
            by_name.setdefault(key.model, []).append(desired.versions[key])
        self.models: Mapping[str, tuple[ModelVersion, ...]] = {
            name: tuple(versions) for name, versions in by_name.items()
        }
        self._versions = desired.versions
        self._defaults = {
            name: next((v for v in versions if v.state is VersionState.READY), None)
            for name, versions in self.models.items()
        }

    def default(self, name: str) -> ModelVersion | None:
        """The version that a bare name means: the newest READY one."""
        return self._defaults.get(name)

    def versions(self, ref: ModelRef) -> tuple[ModelVersion, ...]:
        """All versions of a bare name, newest first, or the one that is named.

        Raises ModelNotFound, VersionNotFound or AliasNotFound.
        """
        versions = self.models.get(ref.name)
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
        close = get_close_matches(name, self.models, n=3, cutoff=0.6)
        if close:
            return f"there is no model {name!r}: did you mean {' or '.join(close)}?"
        if not self.models:
            return f"there is no model {name!r}: none is registered yet"
        return f"there is no model {name!r}: list the models to see their names"

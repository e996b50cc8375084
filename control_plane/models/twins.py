"""What an import would make, where a version of the same bytes and settings has it already."""

import asyncio

from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.types.version import (
    Imported,
    ModelVersion,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.view.view import View

# Reasons of loads that fail because of the pack.
PACK_REFUSED = frozenset({"DIGEST_MISMATCH", "PACK_INVALID", "PACK_NOT_FOUND"})


class Twins:
    def __init__(self, view: View, artifacts: FolderArtifacts) -> None:
        self._view = view
        self._artifacts = artifacts

    async def imported(
        self, artifact: str, settings: VersionSettings, given: ServingSpec
    ) -> Imported | None:
        """The pack of a version that is READY, if it is whole. A damaged pack is not taken over:
        the import that follows mends it.
        """
        if given.build_of is not None:
            return None
        found: dict[str, Imported] = {}
        for twin in self._view.desired.versions.values():
            is_twin = _is_twin(twin, artifact, settings, given)
            if is_twin and twin.pack is not None and not self._loads_fail(twin.key):
                found[twin.pack.digest] = Imported(twin.pack, twin.settings)
        for digest, imported in found.items():
            if await asyncio.to_thread(self._artifacts.is_whole, digest):
                return imported
        return None

    def _loads_fail(self, key: VersionKey) -> bool:
        """Whether a worker refuses the pack, perhaps because another release made it."""
        return any(
            of == key and failure.reason in PACK_REFUSED
            for (_, of), failure in self._view.failures.current.items()
        )


def _is_twin(
    ready: ModelVersion, artifact: str, settings: VersionSettings, given: ServingSpec
) -> bool:
    """Whether an import of this artifact would make the pack that `ready` has."""
    return (
        ready.state is VersionState.READY
        and ready.artifact == artifact
        and ready.asked == settings
        and ready.given.architecture_yaml == given.architecture_yaml
        and ready.given.class_names == given.class_names
        and ready.given.renamed == given.renamed
        and ready.given.build_of is None
    )

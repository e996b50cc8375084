"""One import in a real throw-away child, for tests of what it makes and of what it refuses."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from importer import child, store
from importer.refusal import ImportRefused
from yolopool.v1 import importing_pb2 as pb
from yolopool.v1.types_pb2 import VersionSettings


async def ignore(progress: pb.ImportProgress) -> None: ...


async def import_in_child(path: Path, folder: Path, **changes: Any) -> pb.ImportedPack:
    """Imports a file into `folder`; changes are of the limits, and sha256, settings, on_progress,
    weights_of and build.
    """
    artifact, digest = _take(path, folder, changes.pop("sha256", None))
    settings = changes.pop("settings", VersionSettings())
    on_progress = changes.pop("on_progress", ignore)
    weights_of, build = changes.pop("weights_of", None), changes.pop("build", None)
    limits = child.Limits(**{"memory_bytes": 2 * 1024**3, "time_s": 60, **changes})
    return await child.run(
        artifact, digest, settings, folder, limits, on_progress, weights_of, build
    )


def _take(path: Path, folder: Path, sha256: str | None) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    artifact = store.fetch_artifact(path.as_uri(), folder, 2 * path.stat().st_size + 10**9)
    return artifact, sha256 or hashlib.sha256(path.read_bytes()).hexdigest()


async def refusal_of(path: Path, folder: Path, **changes: Any) -> ImportRefused:
    """The refusal of an import that must fail; it says what to do."""
    with pytest.raises(ImportRefused) as caught:
        await import_in_child(path, folder, **changes)
    assert len(caught.value.message) > 30
    return caught.value

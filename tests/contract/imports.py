"""One import in a real throw-away child, for tests of what it makes and of what it refuses.

Unless a test says otherwise the child is forked from a prepared parent, as an importer has it.
"""

import atexit
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from importer import child, store
from importer.processes.forked_child import PROGRAM, Zygote
from importer.processes.running import Running
from importer.refusal import ImportRefused
from yolopool.v1 import importing_pb2 as pb
from yolopool.v1.types_pb2 import VersionSettings

_zygotes: list[Zygote] = []


async def forked(order: bytes, folder: Path) -> Running:
    """A child of the parent that all tests of this process share: whatever they do to it, it must
    be of use to the next.
    """
    if not _zygotes:
        zygote = await _begun(PROGRAM)
        atexit.register(zygote.close)
        _zygotes.append(zygote)
    return await _zygotes[0].start(order, folder)


@asynccontextmanager
async def parent(program: Sequence[str] = PROGRAM) -> AsyncIterator[Zygote]:
    """One of a test's own, begun in what the test has made of this process."""
    zygote = await _begun(program)
    try:
        yield zygote
    finally:
        zygote.close()


async def _begun(program: Sequence[str]) -> Zygote:
    with tempfile.TemporaryDirectory() as own:
        zygote = Zygote(Path(own), program)
        try:
            await zygote.ready()
        except BaseException:
            zygote.close()
            raise
    return zygote


def children_of(pid: int) -> list[int]:
    """The processes that a process of one thread has started, and not yet waited for."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def imports_under_way() -> list[int]:
    """Children of imports, forked or not, that this process has."""
    found = []
    for pid in children_of(os.getpid()):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        found += [pid] if b"importer.job" in command else []
        found += children_of(pid) if b"importer.processes.zygote" in command else []
    return found


async def ignore(progress: pb.ImportProgress) -> None: ...


async def import_in_child(path: Path, folder: Path, **changes: Any) -> pb.ImportedPack:
    """Imports a file into `folder`; changes are of the limits, and sha256, settings, on_progress,
    weights_of, build and start.
    """
    artifact, digest = _take(path, folder, changes.pop("sha256", None))
    settings = changes.pop("settings", VersionSettings())
    on_progress = changes.pop("on_progress", ignore)
    weights_of, build = changes.pop("weights_of", None), changes.pop("build", None)
    start = changes.pop("start", forked)
    limits = child.Limits(**{"memory_bytes": 2 * 1024**3, "time_s": 60, **changes})
    return await child.run(
        artifact, digest, settings, folder, limits, on_progress, weights_of, build, start
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

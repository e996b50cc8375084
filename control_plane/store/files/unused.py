"""Which files of the artifact store nothing uses any more, and when they may be removed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from control_plane.store.transactions import PENDING
from control_plane.types.desired import Desired
from control_plane.types.worker import WorkerInfo

# Whatever the grace: a caller registers what it uploaded within this time, and an importer reports
# what it published.
MIN_GRACE_S = 10.0
# An import may take its time: what it leaves while it runs is not touched for so long at most.
IMPORT_S = 3600.0


class FileKind(StrEnum):
    ARTIFACT = "artifact"  # an uploaded file
    PACK = "pack"  # a folder that an import made
    UPLOAD = "upload"  # the part of a file that was received
    LEFTOVER = "leftover"  # of an import or a removal that was killed


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file or folder of the store. `name` is its digest, of an upload that and its sender's
    mark, of a leftover its path.
    """

    kind: FileKind
    name: str
    size_bytes: int
    touched_unix_s: float


@dataclass(frozen=True, slots=True)
class InUse:
    """What must stay: digests of artifacts and packs, and whether an import is under way."""

    artifacts: frozenset[str]
    packs: frozenset[str]
    importing: bool = False


@dataclass(frozen=True, slots=True)
class UnusedFile:
    """A file that nothing uses; it may be removed once `keep_s` is 0."""

    file: StoredFile
    unused_s: float
    keep_s: float


def in_use(desired: Desired, workers: Iterable[WorkerInfo]) -> InUse:
    """What versions and gates name, and what workers hold."""
    artifacts, packs, importing = set[str](), set[str](), False
    for version in desired.versions.values():
        artifacts |= {version.artifact, version.given.calibration}
        served = (build.pack for build in version.given.served.values())
        packs |= {pack.digest for pack in (version.pack, *served) if pack is not None}
        importing = importing or version.state in PENDING
    artifacts |= {rule.gate.data for rule in desired.rules.values() if rule.gate is not None}
    packs |= {replica.pack for worker in workers for replica in worker.replicas.values()}
    return InUse(frozenset(artifacts), frozenset(packs), importing)


def unused(
    files: Iterable[StoredFile], used: InUse, grace_s: float, now_unix_s: float
) -> list[UnusedFile]:
    """The files that nothing uses, the largest first. Each is kept for `grace_s` after it was
    touched, and longer where an import or an upload may be at work on it.
    """
    found = []
    for file in files:
        if file.kind is FileKind.ARTIFACT and file.name in used.artifacts:
            continue
        if file.kind is FileKind.PACK and file.name in used.packs:
            continue
        least_s = MIN_GRACE_S
        if file.kind is FileKind.LEFTOVER or (file.kind is FileKind.PACK and used.importing):
            least_s = IMPORT_S
        unused_s = max(0.0, now_unix_s - file.touched_unix_s)
        found.append(UnusedFile(file, unused_s, max(0.0, max(grace_s, least_s) - unused_s)))
    return sorted(found, key=lambda one: (-one.file.size_bytes, one.file.name))

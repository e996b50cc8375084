"""The artifact store: uploaded files and the packs that importers make of them, in one folder.

`artifacts/<sha256>` appears whole, by rename. `partial/<sha256>` holds an interrupted upload until
it is resumed, `partial/.incoming-*` one whose SHA-256 is not known yet. Importers write packs. The
time of a file says when it was used last; `cluster` names the stores whose versions refer to the
files.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

import structlog

from control_plane.store.files.unused import FileKind, StoredFile
from control_plane.store.files.upload import (
    Upload,
    check_announced,
    hash_of,
    open_alone,
    settle,
)
from yolopool.errors import (
    ArtifactTooLarge,
    DigestMismatch,
    InvalidDigest,
    InvalidOffset,
    InvalidOption,
    PackInvalid,
    PackNotFound,
)
from yolopool.server.exhaustion import storing

log = structlog.get_logger()

_HEX = frozenset("0123456789abcdef")
# Of importers, and of this file: a folder or file that is being made, or removed.
_INCOMING, _REMOVED = ".incoming-", ".removed-"


def check_digest(digest: str) -> str:
    """Returns a SHA-256 in lower-case hexadecimal, or raises InvalidDigest."""
    if not _is_digest(digest):
        raise InvalidDigest(f"{digest[:80]!r} is no SHA-256: give 64 lower-case hexadecimal digits")
    return digest


class FolderArtifacts:
    """A content-addressed folder. All methods but `prepare` may run concurrently."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._whole = root / "artifacts"
        self._partial = root / "partial"
        self._packs = root / "packs"
        self._folders = {
            FileKind.ARTIFACT: self._whole,
            FileKind.PACK: self._packs,
            FileKind.UPLOAD: self._partial,
        }
        self.owner_file = root / "cluster"
        self._max_bytes = max_bytes
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def prepare(self) -> None:
        for folder in (self._whole, self._partial, self._packs):
            folder.mkdir(parents=True, exist_ok=True)

    def touch(self, digest: str) -> bool:
        """Notes that an artifact is used now. Returns whether it is stored."""
        return _touched(self._whole / digest)

    def released(self, artifacts: Collection[str], packs: Collection[str], since: float) -> None:
        """Notes since when (Unix seconds) a deleted version has not used its files."""
        places = [self._whole / digest for digest in artifacts]
        places += [self._packs / digest for digest in packs]
        for place in places:
            with suppress(OSError):
                os.utime(place, (since, since))

    def held_bytes(self, digest: str) -> int:
        """How many bytes of an artifact are stored: all, a part, or 0."""
        for folder in (self._whole, self._partial):
            if (folder / digest).is_file():
                return (folder / digest).stat().st_size
        return 0

    def path(self, digest: str) -> Path:
        return (self._whole / digest).absolute()

    def uri(self, digest: str) -> str:
        return self.path(digest).as_uri()

    @property
    def pack_store_uri(self) -> str:
        return self._packs.absolute().as_uri()

    def pack_uri(self, digest: str) -> str:
        return f"{self.pack_store_uri}/{digest}"

    def check_pack(self, digest: str) -> None:
        """Raises PackNotFound without a manifest, PackInvalid if its hash is not the digest."""
        manifest = self._packs / check_digest(digest) / "manifest.json"
        if not manifest.is_file():
            raise PackNotFound(f"no manifest.json of pack {digest} in the store: write it first")
        if hashlib.sha256(manifest.read_bytes()).hexdigest() != digest:
            raise PackInvalid(f"the manifest of pack {digest} has another digest: import again")

    def is_whole(self, digest: str) -> bool:
        """Whether every file of a pack is what its digest says; it counts as used then. Blocks, for
        about a second a gigabyte.
        """
        folder = self._packs / digest
        try:
            self.check_pack(digest)
            manifest = json.loads((folder / "manifest.json").read_bytes())
            found = [
                hash_of(folder / name).hexdigest() for name in ("skeleton.json", "weights.bin")
            ]
            wanted = [manifest["architecture_key"], manifest["weights_sha256"]]
        except (
            OSError, ValueError, KeyError, TypeError, RecursionError, PackNotFound, PackInvalid,
        ):  # fmt: skip
            return False
        return found == wanted and _touched(folder)

    def check_size(self, size_bytes: int) -> None:
        if size_bytes < 1:
            raise InvalidOption("size_bytes is 0: an artifact has at least one byte")
        if size_bytes > self._max_bytes:
            raise ArtifactTooLarge(
                f"{size_bytes} bytes, and at most {self._max_bytes} are taken: "
                "upload a smaller file or raise --max-artifact-bytes"
            )

    @asynccontextmanager
    async def upload(self, digest: str, size_bytes: int, offset: int) -> AsyncIterator[Upload]:
        """Opens an upload that continues at `offset`. One upload of an artifact runs at a time.

        If the block is left early, the received bytes are kept. Once all bytes are there, the
        digest is checked and the artifact appears; so too if all were there before, and the upload
        was ended before that. Raises ArtifactTooLarge, InvalidOffset if `offset` is not what is
        stored, DiskFull or StorageFailed (also while another control plane with this folder
        receives it), after which the upload can go on where it ended, and at the end
        DigestMismatch; the bytes are then removed, as are more than `size_bytes`.
        """
        self.check_size(size_bytes)
        async with self._locks.setdefault(digest, asyncio.Lock()):
            path = self._partial / digest
            held = self.held_bytes(digest)
            if held > size_bytes and path.is_file():
                # What was sent was not this file, whoever sent it.
                await asyncio.to_thread(path.unlink)
                held = 0
            if offset != held:
                raise InvalidOffset(
                    f"{held} bytes of {digest[:12]} are held, so the next chunk begins there "
                    f"and not at {offset}",
                    details={"received_bytes": str(held)},
                )
            opening = asyncio.to_thread(open_alone, path, held)
            with storing(self._root), await opening as file:
                hasher = await asyncio.to_thread(hash_of, path)
                upload = Upload(file, hasher, held, partial(check_announced, size_bytes))
                yield upload
                if upload.received_bytes < size_bytes:
                    return
                await asyncio.to_thread(settle, file)
                # Before it is let go: another control plane may wait for it.
                await asyncio.to_thread(self._finish, path, digest, upload.digest())

    @asynccontextmanager
    async def receive(self, size_bytes: int) -> AsyncIterator[Upload]:
        """Opens an upload of bytes whose digest is not known; `size_bytes` 0: nor is their count.

        At the end of the block the artifact has the name `Upload.digest()`. If the block is left
        early, nothing is kept. Raises as `upload` does.
        """
        if size_bytes:
            self.check_size(size_bytes)
        check = partial(check_announced, size_bytes) if size_bytes else self.check_size
        path = self._partial / f"{_INCOMING}{uuid4().hex}"
        try:
            with storing(self._root):
                with await asyncio.to_thread(path.open, "xb") as file:
                    upload = Upload(file, hashlib.sha256(), 0, check)
                    yield upload
                    self.check_size(upload.received_bytes)
                    if upload.received_bytes < size_bytes:
                        raise InvalidOffset(
                            f"{upload.received_bytes} bytes came of the {size_bytes} that were "
                            "announced: send the file again"
                        )
                    await asyncio.to_thread(settle, file)
                digest = upload.digest()
                async with self._locks.setdefault(digest, asyncio.Lock()):
                    if not self.touch(digest):
                        await asyncio.to_thread(self._finish, path, digest, digest)
        finally:
            with suppress(OSError):  # it is there only if it was not finished
                await asyncio.to_thread(path.unlink, missing_ok=True)

    @asynccontextmanager
    async def fetch(self, name: str, size_bytes: int, digest: str) -> AsyncIterator[Upload]:
        """Opens a download whose part is kept under `name`, a SHA-256 of what it is a part of; it
        continues at `Upload.received_bytes`. `digest`: what it must hash to; empty: not known.

        If the block is left by an error, the received bytes are kept. At its end all must be there:
        the artifact has the name `Upload.digest()` then. Raises as `upload` does.
        """
        self.check_size(size_bytes)
        async with self._locks.setdefault(name, asyncio.Lock()):
            path = self._partial / name
            with storing(self._root):
                held = self.held_bytes(name)
                with await asyncio.to_thread(open_alone, path, held) as file:
                    hasher = await asyncio.to_thread(hash_of, path)
                    upload = Upload(file, hasher, held, partial(check_announced, size_bytes))
                    yield upload
                    await asyncio.to_thread(settle, file)
                    found = upload.digest()
                    async with self._locks.setdefault(found, asyncio.Lock()):
                        await asyncio.to_thread(self._finish, path, digest or found, found)

    async def forget(self, name: str) -> None:
        """Removes the part of a download that is not gone on with."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            with suppress(OSError):
                await asyncio.to_thread((self._partial / name).unlink, missing_ok=True)

    @property
    def scratch(self) -> Path:
        """A folder for files that are being made: `.incoming-*` in it are removed in time."""
        return self._partial

    def _finish(self, path: Path, digest: str, found: str) -> None:
        if found != digest:
            path.unlink()
            raise DigestMismatch(
                f"the bytes hash to {found} and not to {digest}: check the digest, or send the "
                "file again"
            )
        path.rename(self._whole / digest)
        # Without this a power cut may undo the rename, and lose the artifact.
        handle = os.open(self._whole, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    # --- what is there, and what may go -------------------------------------------------------

    def owners(self, cluster: str) -> set[str]:
        """The cluster ids of the stores that the files belong to, `cluster` among them. It is noted
        down unless the files already belong to several, whatever it is then. Blocks.
        """
        with storing(self._root), self.owner_file.open("a+", encoding="utf-8") as file:
            file.seek(0)
            known = set(file.read().split())
            if cluster not in known and len(known) < 2:
                file.write(f"{cluster}\n")
        return known | {cluster}

    def files(self) -> Iterator[StoredFile]:
        """Everything that this store and importers wrote, uploads in progress excepted. Blocks."""
        for kind, folder in self._folders.items():
            for place in folder.iterdir():
                with suppress(OSError):  # it was removed meanwhile
                    if place.name.startswith((_INCOMING, _REMOVED)):
                        name = str(place.relative_to(self._root))
                        yield _stored(FileKind.LEFTOVER, name, place)
                    elif _is_digest(place.name) and not self._is_busy(place.name):
                        yield _stored(kind, place.name, place)

    async def remove(self, file: StoredFile) -> bool:
        """Removes a file as it was listed; not if it was used since, or is being written."""
        if self._is_busy(file.name):
            return False
        async with self._locks.setdefault(file.name, asyncio.Lock()):
            return await asyncio.to_thread(self._remove, file)

    def _remove(self, file: StoredFile) -> bool:
        is_leftover = file.kind is FileKind.LEFTOVER
        place = (self._root if is_leftover else self._folders[file.kind]) / file.name
        # First out of sight, so that nobody begins to use what is about to go.
        doomed = place.with_name(f"{_REMOVED}{uuid4().hex}")
        try:
            place.rename(doomed)
            if _touched_unix_s(file.kind, doomed) != file.touched_unix_s:
                doomed.rename(place)
                return False
        except OSError:
            return False
        try:
            shutil.rmtree(doomed) if doomed.is_dir() else doomed.unlink()
        except OSError as error:  # an importer of another user made it: one must not keep the rest
            log.error("an unused file can't be removed", file=str(doomed), why=str(error))
            return False
        return True

    def _is_busy(self, digest: str) -> bool:
        lock = self._locks.get(digest)
        return lock is not None and lock.locked()


def _stored(kind: FileKind, name: str, place: Path) -> StoredFile:
    size = sum(part.stat().st_size for part in _parts(place))
    return StoredFile(kind, name, size, _touched_unix_s(kind, place))


def _touched_unix_s(kind: FileKind, place: Path) -> float:
    # A leftover may be a folder that is still being filled.
    parts = _parts(place) if kind is FileKind.LEFTOVER else []
    return max(part.stat().st_mtime for part in (place, *parts))


def _parts(place: Path) -> list[Path]:
    return list(place.iterdir()) if place.is_dir() else [place]


def _touched(place: Path) -> bool:
    with suppress(OSError):  # it may be another user's
        os.utime(place)
    return place.exists()


def _is_digest(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)

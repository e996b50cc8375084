"""The artifact store: uploaded files and the packs that importers make of them, in one folder.

`artifacts/<sha256>` appears whole, by rename. `partial/<sha256>` holds an interrupted upload until
it is resumed. Importers write packs; this file only reads them.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

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

_HEX = frozenset("0123456789abcdef")
_REHASH_BYTES = 1 << 20


def check_digest(digest: str) -> str:
    """Returns a SHA-256 in lower-case hexadecimal, or raises InvalidDigest."""
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise InvalidDigest(f"{digest[:80]!r} is no SHA-256: give 64 lower-case hexadecimal digits")
    return digest


class Upload:
    """One upload in progress. The bytes received so far are on disk and hashed."""

    def __init__(self, file: BinaryIO, hasher: Any, size_bytes: int, received_bytes: int) -> None:
        self._file, self._hasher = file, hasher
        self._size_bytes = size_bytes
        self.received_bytes = received_bytes

    async def write(self, chunk: bytes) -> None:
        """Appends a chunk. Raises InvalidOffset beyond the announced size."""
        if self.received_bytes + len(chunk) > self._size_bytes:
            raise InvalidOffset(
                f"more bytes than the {self._size_bytes} that the header announced: "
                "give the file's true size"
            )
        await asyncio.to_thread(self._append, chunk)
        self.received_bytes += len(chunk)

    def digest(self) -> str:
        """SHA-256 of the bytes received, in hexadecimal."""
        return str(self._hasher.hexdigest())

    def _append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hasher.update(chunk)


class FolderArtifacts:
    """A content-addressed folder. All methods but `prepare` may run concurrently."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._whole = root / "artifacts"
        self._partial = root / "partial"
        self._packs = root / "packs"
        self._max_bytes = max_bytes
        self._locks: dict[str, asyncio.Lock] = {}

    def prepare(self) -> None:
        for folder in (self._whole, self._partial, self._packs):
            folder.mkdir(parents=True, exist_ok=True)

    def has(self, digest: str) -> bool:
        return (self._whole / digest).is_file()

    def held_bytes(self, digest: str) -> int:
        """How many bytes of an artifact are stored: all, a part, or 0."""
        for folder in (self._whole, self._partial):
            if (folder / digest).is_file():
                return (folder / digest).stat().st_size
        return 0

    def uri(self, digest: str) -> str:
        return (self._whole / digest).absolute().as_uri()

    @property
    def pack_store_uri(self) -> str:
        return self._packs.absolute().as_uri()

    def pack_uri(self, digest: str) -> str:
        return f"{self.pack_store_uri}/{digest}"

    def packs(self) -> list[str]:
        """Digests of all packs, sorted."""
        return sorted(path.parent.name for path in self._packs.glob("*/manifest.json"))

    def check_pack(self, digest: str) -> None:
        """Raises PackNotFound without a manifest, PackInvalid if its hash is not the digest."""
        manifest = self._packs / check_digest(digest) / "manifest.json"
        if not manifest.is_file():
            raise PackNotFound(f"no manifest.json of pack {digest} in the store: write it first")
        if hashlib.sha256(manifest.read_bytes()).hexdigest() != digest:
            raise PackInvalid(f"the manifest of pack {digest} has another digest: import again")

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
        digest is checked and the artifact appears. Raises ArtifactTooLarge, InvalidOffset if
        `offset` is not what is stored, DiskFull or StorageFailed, after which the upload can go on
        where it ended, and at the end DigestMismatch; the bytes are then removed.
        """
        self.check_size(size_bytes)
        async with self._locks.setdefault(digest, asyncio.Lock()):
            held = self.held_bytes(digest)
            if offset != held:
                raise InvalidOffset(
                    f"{held} bytes of {digest[:12]} are held, so the next chunk begins there "
                    f"and not at {offset}",
                    details={"received_bytes": str(held)},
                )
            path = self._partial / digest
            with storing(self._root):
                with await asyncio.to_thread(path.open, "ab") as file:
                    upload = Upload(file, await asyncio.to_thread(_hash, path), size_bytes, held)
                    yield upload
                    if upload.received_bytes < size_bytes:
                        return
                    await asyncio.to_thread(_settle, file)
                await asyncio.to_thread(self._finish, path, digest, upload.digest())

    def _finish(self, path: Path, digest: str, found: str) -> None:
        if found != digest:
            path.unlink()
            raise DigestMismatch(
                f"the bytes hash to {found} and not to {digest}: upload the file again"
            )
        path.rename(self._whole / digest)
        # Without this a power cut may undo the rename, and lose the artifact.
        handle = os.open(self._whole, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _hash(path: Path) -> Any:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_REHASH_BYTES):
            hasher.update(part)
    return hasher


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())

"""Reads packs: from a location in the artifact store to verified bytes in host memory.

A store on this machine is read directly; packs of any other that fsspec knows go through a bounded
local cache. A file is verified when it is first seen, and again when it changed. Blocking: call it
on a thread. Nothing here imports torch or executes what it reads.
"""

import hashlib
import io
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
from google.protobuf import json_format

from worker.packs.eviction import CacheEntry, choose_evictions
from worker.packs.host_memory import HostMemory
from worker.packs.manifest import (
    MAX_MANIFEST_BYTES,
    check_digest,
    check_manifest,
    tensor_places,
)
from worker.packs.pack import Pack
from yolopool.errors import DigestMismatch, PackInvalid, PackNotFound
from yolopool.server.exhaustion import storing
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.worker_pb2 import PackLocation

MANIFEST, SKELETON, WEIGHTS = "manifest.json", "skeleton.json", "weights.bin"
CACHE_BYTES = 32 * 1024**3
_CHUNK_BYTES = 4 * 1024**2
# Parsed manifests that are kept: some 100 KB each, and a parse takes longer than a load.
_MAX_MANIFESTS = 64
# Age at which a half-fetched pack is removed: nothing can be fetching it any more.
_STALE_S = 3600.0


class PackStore:
    """Fetches packs. Those of a remote store are cached in `<data_dir>/packs`, up to `cache_bytes`;
    packs `in_use` (digests) are never evicted. `pin` is applied to the memory of weights. Any
    thread may fetch.
    """

    def __init__(
        self,
        data_dir: Path,
        cache_bytes: int = CACHE_BYTES,
        in_use: Callable[[], Collection[str]] = tuple,
        pin: Callable[[mmap.mmap], Callable[[], None]] | None = None,
    ) -> None:
        self._cache = data_dir / "packs"
        self._cache_bytes = cache_bytes
        self._in_use = in_use
        self._pin = pin
        self._lock = threading.Lock()
        # Both guarded by the lock: packs without weights, and files that were verified.
        self._read: OrderedDict[str, Pack] = OrderedDict()
        self._verified: dict[str, tuple[int, ...]] = {}

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack:
        """Reads and verifies a pack; `location.uri` is its folder. Without `weights` only the
        manifest and the skeleton are read.

        Raises PackNotFound, PackInvalid, DigestMismatch, OutOfMemory and DiskFull; no memory is
        kept then.
        """
        digest = check_digest(location.digest, "the digest of the pack")
        store, root = _open_store(location.uri)
        if _is_local(store):
            return self._from(Path(root), digest, weights)
        folder = self._cache / digest
        if not folder.is_dir() or (weights and not (folder / WEIGHTS).is_file()):
            self._download(store, root, folder, weights)
        try:
            pack = self._from(folder, digest, weights)
        except (DigestMismatch, PackInvalid):
            shutil.rmtree(folder, ignore_errors=True)  # the next fetch asks the store again
            raise
        os.utime(folder)
        self._evict(keep=folder)
        return pack

    def prepare(self, location: PackLocation) -> Pack:
        """Fetches a pack to this machine and verifies all of it, so that a later `fetch` only
        reads. Returns it without weights. Raises as `fetch`.
        """
        store, root = _open_store(location.uri)
        folder = Path(root)
        if not _is_local(store):
            folder = self._cache / check_digest(location.digest, "the digest of the pack")
            if not (folder / WEIGHTS).is_file():
                self._download(store, root, folder, weights=True)
        pack = self.fetch(location, weights=False)
        try:
            self._verify_weights(folder / WEIGHTS, pack.manifest)
        except DigestMismatch:
            if not _is_local(store):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return pack

    def _from(self, folder: Path, digest: str, weights: bool) -> Pack:
        with self._lock:
            pack = self._read.get(digest)
            if pack is not None:
                self._read.move_to_end(digest)
        if pack is None:
            pack = _read(folder, digest)
            with self._lock:
                self._read[digest] = pack
                while len(self._read) > _MAX_MANIFESTS:
                    self._read.popitem(last=False)
        if not weights:
            return pack
        return replace(pack, memory=self._read_weights(folder / WEIGHTS, pack.manifest))

    def _read_weights(self, path: Path, manifest: PackManifest) -> HostMemory:
        with _found(path), path.open("rb", buffering=0) as file:
            seen = _seen(file, manifest)  # before memory is allocated for a truncated file
            memory = HostMemory(manifest.weights_bytes, self._pin)
            try:
                _fill(memory, file)
                if not self._is_verified(manifest, seen):
                    with memoryview(memory.buffer) as whole:
                        found = hashlib.sha256(whole).hexdigest()
                    _verify(path, found, manifest.weights_sha256)
                    self._note_verified(manifest, seen)
            except BaseException:
                memory.close()
                raise
        return memory

    def _verify_weights(self, path: Path, manifest: PackManifest) -> None:
        with _found(path), path.open("rb", buffering=0) as file:
            seen = _seen(file, manifest)
            if not self._is_verified(manifest, seen):
                found = hashlib.file_digest(file, "sha256").hexdigest()
                _verify(path, found, manifest.weights_sha256)
                self._note_verified(manifest, seen)

    def _is_verified(self, manifest: PackManifest, seen: tuple[int, ...]) -> bool:
        with self._lock:
            return self._verified.get(manifest.weights_sha256) == seen

    def _note_verified(self, manifest: PackManifest, seen: tuple[int, ...]) -> None:
        with self._lock:
            self._verified[manifest.weights_sha256] = seen

    def _download(self, store: Any, root: str, folder: Path, weights: bool) -> None:
        with storing(self._cache):
            self._cache.mkdir(parents=True, exist_ok=True)
            self._sweep()
            scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._cache))
        try:
            for name in (MANIFEST, SKELETON, WEIGHTS)[: 3 if weights else 2]:
                with storing(self._cache), _found(f"{root}/{name}"):
                    store.get_file(f"{root.rstrip('/')}/{name}", str(scratch / name))
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        except OSError:
            # Another process of this machine may have put the same pack there first.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _sweep(self) -> None:
        for path in self._cache.glob(".incoming-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)

    def _evict(self, keep: Path) -> None:
        """Evicts packs beyond the bytes of the cache. The cost of a reload counts as its bytes, so
        that a pack is worth the more, the more recently it was used.
        """
        in_use = {*self._in_use(), keep.name}
        now, entries = time.time(), []
        for folder in self._cache.iterdir():
            with suppress(OSError):  # another process of this machine may remove the folder
                if not folder.name.startswith("."):
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    used = folder.stat().st_mtime
                    rate = 1 / max(now - used, 1e-3)
                    entries.append(
                        CacheEntry(
                            folder.name, size, size, rate, used, in_use=folder.name in in_use
                        )
                    )
        for name in choose_evictions(entries, 0, self._cache_bytes).keys:
            shutil.rmtree(self._cache / name, ignore_errors=True)


def _open_store(uri: str) -> tuple[Any, str]:
    # "::" chains file systems, e.g. archives within archives. No pack needs that.
    if "://" not in uri or "::" in uri:
        raise PackNotFound(f"{uri[:200]!r} is no location of a pack: give file:///folder or s3://")
    try:
        store, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise PackNotFound(f"no store is known for {uri[:200]!r}: {error}") from error
    return store, str(root)


def _is_local(store: Any) -> bool:
    return "file" in ((store.protocol,) if isinstance(store.protocol, str) else store.protocol)


@contextmanager
def _found(path: object) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise PackNotFound(
            f"{path} can't be read ({error.strerror or error}): check that this host sees the "
            "store and that the pack was not deleted"
        ) from error


def _read(folder: Path, digest: str) -> Pack:
    """A pack without its weights."""
    text = _read_whole(folder / MANIFEST, MAX_MANIFEST_BYTES)
    _verify(folder / MANIFEST, hashlib.sha256(text).hexdigest(), digest)
    manifest = PackManifest()
    try:
        json_format.Parse(text, manifest)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise PackInvalid(f"{folder / MANIFEST} is no manifest of a pack: {error}") from error
    check_manifest(manifest)
    skeleton = _read_whole(folder / SKELETON, manifest.skeleton_bytes)
    _verify(folder / SKELETON, hashlib.sha256(skeleton).hexdigest(), manifest.architecture_key)
    return Pack(digest, manifest, skeleton, tensor_places(manifest))


def _read_whole(path: Path, limit_bytes: int) -> bytes:
    with _found(path), path.open("rb") as file:
        text = file.read(limit_bytes + 1)
    if len(text) > limit_bytes:
        raise PackInvalid(f"{path} has more than the {limit_bytes} bytes it may have")
    return text


def _seen(file: io.FileIO, manifest: PackManifest) -> tuple[int, ...]:
    """What identifies a file of weights as the one that was verified."""
    status = os.fstat(file.fileno())
    if status.st_size != manifest.weights_bytes:
        raise DigestMismatch(
            f"{file.name} has {status.st_size} bytes, its manifest says "
            f"{manifest.weights_bytes}: the copy was cut short or changed; register the model's "
            "file again, which mends the pack"
        )
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _fill(memory: HostMemory, file: io.FileIO) -> None:
    """Reads a file of the memory's size into it."""
    filled = 0
    with memoryview(memory.buffer) as whole:
        while filled < memory.size_bytes:
            with whole[filled : filled + _CHUNK_BYTES] as part:
                count = file.readinto(part)
            if not count:
                raise DigestMismatch(f"{file.name} was cut short while it was read: try again")
            filled += count


def _verify(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise DigestMismatch(
            f"{path} has SHA-256 {found[:12]}…, not {wanted[:12]}…: the copy is damaged or was "
            "changed; register the model's file again, which mends the pack"
        )

"""The door to packs: from a location in the artifact store to verified bytes in host memory.

A store on this machine is read straight; any other that fsspec knows goes through a bounded
folder of packs here. Blocking: call it on a thread. Nothing here imports torch or runs a byte.
"""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
import numpy.typing as npt
from google.protobuf import json_format

from worker.pack_rules import MAX_MANIFEST_BYTES, check_digest, check_manifest
from yolopool.errors import DigestMismatch, PackInvalid, PackNotFound
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.worker_pb2 import PackLocation

MANIFEST, SKELETON, WEIGHTS = "manifest.json", "skeleton.json", "weights.bin"
CACHE_BYTES = 32 * 1024**3
_CHUNK_BYTES = 4 * 1024**2


class HostMemory:
    """Bytes mapped for one pack alone, so that dropping them gives exactly them back to the OS.

    The allocator of the process would keep them, and a mapped file could change or be cut
    under the model.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._map: mmap.mmap | None = mmap.mmap(-1, size_bytes)

    @property
    def buffer(self) -> mmap.mmap:
        """The bytes, writable: for the one that fills them and for libraries that insist on it."""
        if self._map is None:
            raise ValueError("the memory of this pack was given back: fetch it again")
        return self._map

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """A read-only view, uint8 (size_bytes,)."""
        view = np.frombuffer(self.buffer, np.uint8)
        view.flags.writeable = False
        return view

    def close(self) -> None:
        """Gives the memory back: now, or with the last view of it. Idempotent."""
        memory, self._map = self._map, None
        if memory is not None:
            try:
                memory.close()
            except BufferError:
                return  # a view is alive; the mapping goes when its last reference does


@dataclass(frozen=True, slots=True)
class Pack:
    """A verified pack: its digest, manifest, parsed skeleton, and weights unless not asked for."""

    digest: str
    manifest: PackManifest
    skeleton: Any
    memory: HostMemory | None = None

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """All weights, uint8 (weights_bytes,), read-only; ValueError if they were not fetched."""
        return self._fetched().array

    @property
    def weights_buffer(self) -> mmap.mmap:
        """The same bytes for `torch.frombuffer`; nobody writes to them."""
        return self._fetched().buffer

    def close(self) -> None:
        """Gives the weights' memory back, at the latest with the last view. Idempotent."""
        if self.memory is not None:
            self.memory.close()

    def _fetched(self) -> HostMemory:
        if self.memory is None:
            raise ValueError("this pack was fetched without its weights")
        return self.memory


class PackDoor:
    """Fetches packs; packs of a store elsewhere are kept in `<data_dir>/packs`, least used first
    to go beyond `cache_bytes`.
    """

    def __init__(self, data_dir: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache = data_dir / "packs"
        self._cache_bytes = cache_bytes

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack:
        """Reads and verifies a pack; `location.uri` is its folder. Without `weights` only the
        manifest and the skeleton are read.

        Raises PackNotFound, PackInvalid, DigestMismatch; keeps no memory then.
        """
        digest = check_digest(location.digest, "the digest of the pack")
        store, root = _open_store(location.uri)
        if store.protocol == "file" or "file" in store.protocol:
            return _read(Path(root), digest, weights)
        folder = self._cache / digest
        if not folder.is_dir() or (weights and not (folder / WEIGHTS).is_file()):
            self._download(store, root, folder, weights)
        try:
            pack = _read(folder, digest, weights)
        except (DigestMismatch, PackInvalid):
            shutil.rmtree(folder, ignore_errors=True)  # the next fetch asks the store again
            raise
        os.utime(folder)
        self._evict(keep=folder)
        return pack

    def _download(self, store: Any, root: str, folder: Path, weights: bool) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._cache))
        try:
            for name in (MANIFEST, SKELETON, WEIGHTS)[: 3 if weights else 2]:
                with _found(f"{root}/{name}"):
                    store.get_file(f"{root.rstrip('/')}/{name}", str(scratch / name))
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        except OSError:
            # Another process of this machine may have put the same pack there first.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _evict(self, keep: Path) -> None:
        folders = [path for path in self._cache.iterdir() if not path.name.startswith(".")]
        total = 0
        for folder in sorted(folders, key=lambda path: -path.stat().st_mtime):
            total += sum(file.stat().st_size for file in folder.iterdir())
            if total > self._cache_bytes and folder != keep:
                shutil.rmtree(folder, ignore_errors=True)


def _open_store(uri: str) -> tuple[Any, str]:
    # "::" would chain file systems, e.g. archives within archives: no pack needs that.
    if "://" not in uri or "::" in uri:
        raise PackNotFound(f"{uri[:200]!r} is no location of a pack: give file:///folder or s3://")
    try:
        store, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise PackNotFound(f"no store is known for {uri[:200]!r}: {error}") from error
    return store, str(root)


@contextmanager
def _found(path: object) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise PackNotFound(
            f"{path} can't be read ({error.strerror or error}): check that this host sees the "
            "store and that the pack was not deleted"
        ) from error


def _read(folder: Path, digest: str, weights: bool) -> Pack:
    text = _read_whole(folder / MANIFEST, MAX_MANIFEST_BYTES)
    _verify(folder / MANIFEST, hashlib.sha256(text).hexdigest(), digest)
    manifest = PackManifest()
    try:
        json_format.Parse(text, manifest)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise PackInvalid(f"{folder / MANIFEST} is no manifest of a pack: {error}") from error
    check_manifest(manifest)
    text = _read_whole(folder / SKELETON, manifest.skeleton_bytes)
    _verify(folder / SKELETON, hashlib.sha256(text).hexdigest(), manifest.architecture_key)
    try:
        skeleton = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackInvalid(f"{folder / SKELETON} is not JSON: {error}") from error
    memory = _read_weights(folder / WEIGHTS, manifest) if weights else None
    return Pack(digest, manifest, skeleton, memory)


def _read_whole(path: Path, limit_bytes: int) -> bytes:
    with _found(path), path.open("rb") as file:
        text = file.read(limit_bytes + 1)
    if len(text) > limit_bytes:
        raise PackInvalid(f"{path} has more than the {limit_bytes} bytes it may have")
    return text


def _read_weights(path: Path, manifest: PackManifest) -> HostMemory:
    with _found(path), path.open("rb") as file:
        # Before the memory is taken: a short file is no reason to map what the manifest says.
        size = os.fstat(file.fileno()).st_size
        if size != manifest.weights_bytes:
            raise DigestMismatch(
                f"{path} has {size} bytes, its manifest says {manifest.weights_bytes}: the copy "
                "was cut short or changed; import the model again"
            )
        memory = HostMemory(size)
        try:
            _verify(path, _fill(memory, file), manifest.weights_sha256)
        except BaseException:
            memory.close()
            raise
    return memory


def _fill(memory: HostMemory, file: IO[bytes]) -> str:
    """Reads a file into memory and returns its SHA-256, chunk by chunk while it is in the cache."""
    digest = hashlib.sha256()
    with memoryview(memory.buffer) as whole:
        filled = 0
        while filled < memory.size_bytes:
            with whole[filled : filled + _CHUNK_BYTES] as part:
                count = file.readinto(part)  # type: ignore[attr-defined]  # any binary file has it
                if not count:
                    break
                with part[:count] as read:
                    digest.update(read)
            filled += count
    return digest.hexdigest()


def _verify(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise DigestMismatch(
            f"{path} has SHA-256 {found[:12]}…, not {wanted[:12]}…: the copy is damaged or was "
            "changed; import the model again"
        )

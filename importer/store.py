"""Access to the artifact store: fetches artifacts to import, verifies and publishes packs.

Blocking: call it on a thread. A pack appears whole or not at all.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from google.protobuf import json_format

from importer.refusal import CRASHED, NOT_FOUND, TOO_LARGE, ImportRefused
from yolopool.server.exhaustion import storing
from yolopool.v1.pack_pb2 import PackManifest

# The manifest comes last: in a store without rename, a folder without it is not a pack.
FILES = ("weights.bin", "skeleton.json", "manifest.json")
_CHUNK_BYTES = 4 * 1024**2
_SCRATCH, _INCOMING = "yolopool-import-", ".incoming-"
# Folders untouched for so long were left by a crash; an import may take its own time limit more.
_STALE_S = 3600.0


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for one import inside `folder`, which is created; removed with the `with`. Raises
    DiskFull.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


def sweep_scratch(folder: Path, time_limit_s: float) -> None:
    """Removes folders of killed importers once no import can still be using them."""
    _sweep(folder, _SCRATCH, _STALE_S + time_limit_s)


def fetch_artifact(uri: str, folder: Path, max_bytes: int, name: str = "artifact.pt") -> Path:
    """Fetches the artifact into `folder`, with the suffix .pt, which the model library requires.

    A local file is linked, not copied. Raises ImportRefused and DiskFull.
    """
    target = folder / name
    store, path = fsspec.core.url_to_fs(uri)
    try:
        size = int(store.size(path))
        if size > max_bytes:
            raise ImportRefused(
                TOO_LARGE,
                f"the artifact has {size} bytes, this importer takes {max_bytes}: raise its "
                "--max-artifact-bytes",
            )
        if _is_local(store):
            Path(path).open("rb").close()
            with storing(folder):
                target.symlink_to(Path(path).absolute())
        else:
            with storing(folder):
                store.get_file(path, str(target))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImportRefused(
            NOT_FOUND,
            f"{uri} can't be read ({error}): check that the importer sees the artifact store",
        ) from error
    return target


def verify_pack(folder: Path, digest: str) -> None:
    """Verifies the pack that the child reports, because it has read an untrusted file."""
    manifest = PackManifest()
    try:
        if not all(stat.S_ISREG((folder / name).lstat().st_mode) for name in FILES):
            raise ImportRefused(CRASHED, "the import left files that are not plain files: retry")
        text = (folder / "manifest.json").read_bytes()
        json_format.Parse(text, manifest)
        found = (
            hashlib.sha256(text).hexdigest(),
            _sha256(folder / "skeleton.json"),
            _sha256(folder / "weights.bin"),
        )
    except (OSError, json_format.ParseError, UnicodeDecodeError) as error:
        raise ImportRefused(CRASHED, f"the import left no whole pack ({error}): retry") from error
    if found != (digest, manifest.architecture_key, manifest.weights_sha256):
        raise ImportRefused(CRASHED, "the import left a pack that does not match itself: retry")


def publish(folder: Path, store_uri: str, digest: str) -> None:
    """Puts a verified pack at `<store_uri>/<digest>`; a whole pack that is already there stays.

    Raises DiskFull.
    """
    store, root = fsspec.core.url_to_fs(store_uri)
    if not _is_local(store):
        for name in FILES:
            store.put_file(str(folder / name), f"{str(root).rstrip('/')}/{digest}/{name}")
        return
    with storing(Path(root)):
        _publish(folder, Path(root), digest)


def _publish(folder: Path, packs: Path, digest: str) -> None:
    packs.mkdir(parents=True, exist_ok=True)
    _sweep(packs, _INCOMING, _STALE_S)
    incoming = packs / f"{_INCOMING}{uuid.uuid4().hex}"
    incoming.mkdir()
    try:
        for name in FILES:
            _copy_durably(folder / name, incoming / name)
        _sync_folder(incoming)
        try:
            incoming.rename(packs / digest)
        except OSError:
            # The same pack exists, made earlier or by another importer. It is used again from now
            # on: control planes remove packs that were not for long. A damaged one is replaced;
            # otherwise no import could ever repair it.
            with contextlib.suppress(OSError):
                os.utime(packs / digest)
            if not _is_whole(packs / digest, digest):
                with contextlib.suppress(FileNotFoundError):  # it was being removed
                    (packs / digest).rename(packs / f"{_INCOMING}{uuid.uuid4().hex}")
                incoming.rename(packs / digest)
        _sync_folder(packs)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        verify_pack(folder, digest)
    except ImportRefused:
        return False
    return True


def _sweep(parent: Path, prefix: str, untouched_s: float) -> None:
    """Removes folders with this prefix in which nothing was touched for so long."""
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            touched = max(path.lstat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - touched > untouched_s:
                shutil.rmtree(left, ignore_errors=True)


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_local(store: Any) -> bool:
    return "file" in ((store.protocol,) if isinstance(store.protocol, str) else store.protocol)

"""Files of S3 and of what speaks its protocol, MinIO among others, by s3fs (extra s3).

Endpoint, region and credentials come from the environment, or from the profile of ~/.aws that a
caller names: no caller says where requests go.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Lock
from typing import Any
from urllib.parse import quote

import fsspec
from fsspec.asyn import sync

from control_plane.sources.remote_file import CONNECT_S, PART_BYTES, STALL_S, Facts, Found
from control_plane.sources.source_uri import SourceUri, shown
from yolopool.errors import (
    ExtraMissing,
    SourceChanged,
    SourceDenied,
    SourceInvalid,
    SourceNotFound,
    SourceUnavailable,
    YolopoolError,
)

_NO_CREDENTIALS = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")
)


class ObjectStores:
    """One client a profile, made when it is first used. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: dict[str, Any] = {}

    def of(self, profile: str) -> Any:
        """Raises ExtraMissing."""
        with self._lock:
            if profile not in self._made:
                self._made[profile] = _client(profile)
            return self._made[profile]

    def forget(self, profile: str) -> None:
        """So that credentials that came later are seen."""
        with self._lock:
            self._made.pop(profile, None)

    def open(self, uri: SourceUri, profile: str) -> "ObjectFile":
        if not uri.path or uri.path.endswith("/"):
            raise SourceInvalid(f"{shown(uri.text)} names no object: give the key of the file")
        with self._failures(uri, profile):
            store = self.of(profile)
            info = store.info(f"{uri.host}/{uri.path}", refresh=True)
        if info["type"] != "file":
            raise SourceNotFound(f"{shown(uri.text)} is no object: give the key of the file")
        return ObjectFile(uri, store, info)

    def list(self, uri: SourceUri, profile: str) -> list[Found]:
        """The objects under a prefix itself, without those of deeper ones."""
        with self._failures(uri, profile):
            prefix = f"{uri.host}/{uri.path}".rstrip("/")
            entries = self.of(profile).ls(prefix, detail=True, refresh=True)
        return [_found(entry) for entry in entries if entry["type"] == "file"]

    @contextmanager
    def _failures(self, uri: SourceUri, profile: str) -> Iterator[None]:
        try:
            yield
        except YolopoolError:
            raise
        except Exception as error:
            said = failure(error, uri)
            if isinstance(said, SourceDenied):
                self.forget(profile)
            raise said from error


class ObjectFile:
    """One state of an object: reads ask for its ETag."""

    def __init__(self, uri: SourceUri, store: Any, info: Any) -> None:
        self._uri, self._store = uri, store
        self._etag = str(info.get("ETag", ""))
        self._body: Any = None
        self.facts = Facts(uri.name, int(info["size"]), self._etag)

    def read(self, offset: int) -> tuple[int, Iterator[bytes]]:
        if offset >= self.facts.size_bytes:  # a range that is empty would be refused
            return offset, iter(())
        asked = {"IfMatch": self._etag} if self._etag else {}
        try:
            answer = self._store.call_s3(
                "get_object",
                Bucket=self._uri.host,
                Key=self._uri.path,
                Range=f"bytes={offset}-",
                **asked,
            )
        except Exception as error:
            raise failure(error, self._uri) from error
        self._body = answer["Body"]
        return offset, self._parts()

    def _parts(self) -> Iterator[bytes]:
        try:
            while part := sync(self._store.loop, self._body.read, PART_BYTES, timeout=2 * STALL_S):
                yield bytes(part)
        except Exception as error:
            raise failure(error, self._uri) from error

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(Exception):  # on its own loop, which may be at an end
                self._store.loop.call_soon_threadsafe(body.close)


def failure(error: Exception, uri: SourceUri) -> YolopoolError:
    """The error for callers. What the library says is not quoted: it may name keys and hosts."""
    place, kind = shown(uri.text), type(error).__name__
    if isinstance(error, FileNotFoundError):
        return SourceNotFound(f"{place} does not exist: check bucket and key")
    if isinstance(error, PermissionError) or kind in _NO_CREDENTIALS:
        return SourceDenied(
            f"S3 does not let the control plane read {place}: give it credentials by its "
            "environment, or name a profile of them"
        )
    changed = isinstance(error, OSError) and error.errno == errno.EINVAL
    if changed or kind == "FileExpired":
        return SourceChanged(f"{place} changed while it was read: it is read again")
    return SourceUnavailable(f"S3 does not give {place} ({kind}): it is tried again")


def _client(profile: str) -> Any:
    try:
        import s3fs  # type: ignore[import-untyped] # noqa: F401 - fsspec imports it by name
    except ImportError as error:
        raise ExtraMissing(
            "s3:// needs s3fs on the control planes: pip install 'yolopool[s3]'"
        ) from error
    client = fsspec.filesystem(
        "s3",
        profile=profile or None,
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": CONNECT_S,
            "read_timeout": STALL_S,
            "retries": {"max_attempts": 1},
        },
    )
    client.retries = 1  # who waits, and how long, is decided above
    return client


def _found(entry: Any) -> Found:
    path, changed = str(entry["name"]), entry.get("LastModified")
    moment = changed.timestamp() if isinstance(changed, datetime) else 0.0
    stamp = f"{entry['size']}-{entry.get('ETag', '')}"
    return Found(path.rpartition("/")[2], f"s3://{quote(path)}", stamp, moment)

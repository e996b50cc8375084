"""SHA-256 of files, kept by path, size and time of change, so that what did not change is not read
again. A file that changed within RACY_S of its reading is read again: a later change may leave its
time as it is.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

RACY_S = 2.0
MAX_FILES = 50_000
_FORMAT = 1


def usual_place() -> Path:
    """Where this user's cache is."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "yolopool" / "digests.json"


class DigestCache:
    """`now_s`: Unix seconds of the beginning. Unreadable, it costs time alone."""

    def __init__(self, place: Path, now_s: float) -> None:
        self._place = place
        self._now_s = now_s
        self._known = _read(place)
        self._used: dict[str, tuple[list[Any], str]] = {}

    def file(self, path: Path) -> str:
        """The digest of a file. Raises OSError."""
        return self._digest(str(path.absolute()), [path], lambda: _hashed(path))

    def files(self, name: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
        """The digest of what `compute` makes of several files, kept by all of theirs."""
        return self._digest(name, paths, compute)

    def _digest(self, name: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
        stats = [path.stat() for path in paths]
        stands = [
            [path.name, one.st_size, one.st_mtime_ns]
            for path, one in zip(paths, stats, strict=True)
        ]
        known = self._known.get(name)
        digest = known[1] if known is not None and known[0] == stands else compute()
        newest_s = max((one.st_mtime_ns for one in stats), default=0) / 1e9
        if newest_s < self._now_s - RACY_S:
            self._used[name] = (stands, digest)
        return digest

    def save(self) -> None:
        """Writes what was used now, and of the rest as much as there is room for."""
        kept = {**self._known, **{name: list(one) for name, one in self._used.items()}}
        newest = dict(list(kept.items())[-MAX_FILES:])
        if newest == self._known:
            return
        with suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self._place.parent, prefix=self._place.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "files": newest}, file)
            Path(part).replace(self._place)


def _read(place: Path) -> dict[str, list[Any]]:
    try:
        raw = json.loads(place.read_text(encoding="utf-8"))
        found = raw["files"] if raw["format"] == _FORMAT else {}
        return {
            name: one
            for name, one in found.items()
            if isinstance(one, list) and len(one) == 2 and isinstance(one[1], str)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

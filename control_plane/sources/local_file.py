"""Files of this machine and its mounts, a NAS: read and listed in the folders that are allowed."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from control_plane.sources.remote_file import PART_BYTES, Facts, Found
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SourceUri, shown
from yolopool.errors import (
    SourceChanged,
    SourceDenied,
    SourceNotFound,
    SourceUnavailable,
    YolopoolError,
)


class LocalFile:
    """Opened at once; what is read is of this very file, though another may take its name."""

    def __init__(self, uri: SourceUri, rules: SourceRules) -> None:
        rules.check_path(uri.path)
        try:
            # A pipe must not be waited for.
            handle = os.open(uri.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise failure(error, uri) from error
        # Without a buffer: its lock would make who closes it wait for a read that hangs.
        self._file = os.fdopen(handle, "rb", buffering=0)
        try:
            # Links may have led elsewhere: where the open file is counts.
            rules.check_path(_place(handle, uri.path))
            there = os.fstat(handle)
            if not stat.S_ISREG(there.st_mode):
                raise SourceNotFound(f"{shown(uri.text)} is no file: name the model's file")
        except BaseException:
            self.close()
            raise
        self.facts = Facts(uri.name, there.st_size, _stamp(there))

    def read(self, offset: int) -> tuple[int, Iterator[bytes]]:
        self._file.seek(offset)
        return offset, self._parts()

    def _parts(self) -> Iterator[bytes]:
        try:
            while part := self._file.read(PART_BYTES):
                yield part
            if _stamp(os.fstat(self._file.fileno())) != self.facts.stamp:
                raise SourceChanged(
                    f"{self.facts.name} was written while it was read: it is read again"
                )
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise SourceUnavailable(f"{self.facts.name} can't be read: {error}") from error

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def list_folder(uri: SourceUri, rules: SourceRules) -> list[Found]:
    """The files that lie in a folder itself, but none whose name is not UTF-8: no URI names it.
    Raises SourceRefused, SourceNotFound, SourceDenied and SourceUnavailable.
    """
    rules.check_path(f"{uri.path.rstrip('/')}/")
    place = os.path.realpath(uri.path)
    rules.check_path(f"{place}/")
    found = []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if _is_text(entry.name) and entry.is_file(follow_symlinks=False):
                        there = entry.stat(follow_symlinks=False)
                        path = Path(uri.path) / entry.name
                        found.append(
                            Found(entry.name, path.as_uri(), _stamp(there), there.st_mtime)
                        )
    except OSError as error:
        raise failure(error, uri) from error
    return found


def failure(error: OSError, uri: SourceUri) -> YolopoolError:
    """The error for callers, who may not see more of this machine than they named."""
    place = shown(uri.text)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return SourceNotFound(f"{place} does not exist: check the path")
    if isinstance(error, PermissionError):
        return SourceDenied(f"the control plane may not read {place}: give its user the right")
    return SourceUnavailable(f"{place} can't be read ({error.strerror}): check the mount")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(handle: int, path: str) -> str:
    try:
        return str(Path(f"/proc/self/fd/{handle}").readlink())
    except OSError:  # there is no /proc here
        return os.path.realpath(path)


def _stamp(there: os.stat_result) -> str:
    return f"{there.st_size}-{there.st_mtime_ns}"

"""The log file of a child process, which other runs may have written to before."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SHOWN_LINES = 15


class ProcessLog:
    """Where a child's output goes, and what it has said since it was started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = (0, 0)  # inode and size of the file when the child was started

    @contextmanager
    def opened(self) -> Iterator[IO[bytes] | int]:
        """The file, for the child to append to; nowhere if it can't be opened."""
        try:
            file = self.path.open("ab")
        except OSError:
            yield subprocess.DEVNULL
            return
        with file:
            at = os.fstat(file.fileno())
            self._start = (at.st_ino, at.st_size)
            yield file

    def last_words(self) -> str:
        """The last lines that the child wrote. A file that was rotated since is all its own."""
        try:
            with self.path.open("rb") as file:
                inode, size = self._start
                if os.fstat(file.fileno()).st_ino == inode:
                    file.seek(size)
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-SHOWN_LINES:])

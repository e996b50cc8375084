"""A clock of the wall for each process, which can be set while it runs. What counts on, as
CLOCK_MONOTONIC does, goes on counting: a real clock that is set leaves that alone, too.
"""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.grounds.ground import Ground

SOURCE = Path(__file__).with_name("wall_clock.c")


class Clocks(Ground):
    """A small library, built here, adds what a file says to each look at the time of day."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: list[str] = []

    @staticmethod
    def lacks() -> str:
        there = shutil.which("gcc") is not None and Path("/usr/include/stdlib.h").exists()
        return "" if there else "the packages gcc, libc6-dev"

    def open(self) -> None:
        command = ("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", self._library, SOURCE, "-ldl")
        subprocess.run(command, check=True, capture_output=True, text=True)

    def environment(self, name: str) -> dict[str, str]:
        if name not in self.names:
            self.names.append(name)
            self._file(name).write_bytes(struct.pack("q", 0))
        return {"LD_PRELOAD": str(self._library), "YOLOPOOL_CLOCK": str(self._file(name))}

    def put(self, offset_s: int, names: Sequence[str]) -> None:
        """Sets clocks, at once: so many seconds before (negative) or after the true time."""
        for name in names:
            with self._file(name).open("r+b") as file:
                file.write(struct.pack("q", offset_s))

    @property
    def _library(self) -> Path:
        return self.folder / "wall_clock.so"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

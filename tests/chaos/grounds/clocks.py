"""A clock of the wall for each process, which can be set while it runs. What counts on, as
CLOCK_MONOTONIC does, goes on counting: a real clock that is set leaves that alone, too.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.chaos.grounds.ground import Ground

LIBRARY = "libfaketimeMT.so.1"
FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime")


class Clocks(Ground):
    """The library of the package faketime reads each clock's offset from a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: list[str] = []

    @staticmethod
    def lacks() -> str:
        return "" if _library() is not None else "the package faketime"

    def environment(self, name: str) -> dict[str, str]:
        if name not in self.names:
            self.names.append(name)
            self.put(0, [name])
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            # Seconds for which an offset that was read holds.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def put(self, offset_s: int, names: Sequence[str]) -> None:
        """Sets clocks: so many seconds before (negative) or after the true time."""
        for name in names:
            part = self._file(name).with_suffix(".part")
            part.write_text(f"{offset_s:+d}\n")
            part.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.clock"


def _library() -> Path | None:
    found = (Path(folder) / LIBRARY for folder in FOLDERS)
    return next((path for path in found if path.exists()), None)

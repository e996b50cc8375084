"""One small disk for all of a pool: Redis' file, the artifact store, packs, logs, local copies."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.chaos.grounds.ground import Ground

SIZE_MIB = 96
CHUNK = bytes(64 * 1024)


class Disk(Ground):
    """A tmpfs on the pool's folder, which `fill` fills to the last byte."""

    @staticmethod
    def lacks() -> str:
        return "" if os.geteuid() == 0 else "the right to mount a disk (root)"

    def open(self) -> None:
        size = f"size={SIZE_MIB}m"
        command = ("mount", "-t", "tmpfs", "-o", size, "yolopool-chaos", str(self.folder))
        subprocess.run(command, check=True, capture_output=True, text=True)

    def close(self) -> None:
        subprocess.run(("umount", "-l", str(self.folder)), check=False, capture_output=True)

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(CHUNK):
                pass
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(b"\0"):
                pass

    def free(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

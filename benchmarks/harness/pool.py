"""A real pool for a scenario: `yolopool up` as a child process on free ports of loopback.

It gets a data directory of its own, which is removed afterwards, and its processes are found by
the process tree, so that their cost is read from outside.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.harness.fleet import is_serving
from benchmarks.harness.processes import Process, descendants
from yolopool.client.async_client import AsyncClient
from yolopool.errors import YolopoolError
from yolopool.local.pool import PoolOptions

START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
# Below those that the kernel gives to outgoing connections: one of these would be taken by a
# stranger between the moment it was found free and the start of the process it was meant for.
PORTS = range(20_000, 32_000)
_first = random.SystemRandom().randrange(len(PORTS))
_ports: Iterator[int] = itertools.cycle((*PORTS[_first:], *PORTS[:_first]))

COMMAND = "import sys; from yolopool.cli.main import main; sys.argv[0] = 'yolopool'; main()"


@dataclass(frozen=True, slots=True)
class PoolFlags:
    """What a scenario may choose of a pool; `extra` goes to `yolopool up` as it is."""

    devices: str = "cpu"
    memory_budget: str = ""
    demo: bool = True
    extra: tuple[str, ...] = ()

    @property
    def expected_workers(self) -> int:
        """How many workers a started pool has at least."""
        return PoolOptions(Path(), devices=self.devices).min_workers

    def arguments(self, port: int, data_dir: Path) -> list[str]:
        """The arguments of `yolopool`."""
        arguments = ["up", "--devices", self.devices, "--port", str(port), "--http-port", "0"]
        arguments += ["--data-dir", str(data_dir)]
        if self.memory_budget:
            arguments += ["--memory-budget", self.memory_budget]
        if not self.demo:
            arguments += ["--no-demo"]
        return [*arguments, *self.extra]


def add_flags(parser: argparse.ArgumentParser, devices: str = "cpu") -> None:
    """The flags every scenario with a pool has."""
    parser.add_argument(
        "--devices", default=devices, help="devices of the pool: cpu, cpu:2x1, cuda, sim:N"
    )
    parser.add_argument("--memory-budget", default="", help="per device: bytes, 4GiB or 0.8")
    parser.add_argument("--pool-log", type=Path, help="keep the log of the pool's processes here")


class Pool:
    """`async with Pool(flags) as pool`: started and serving inside, stopped after. `store`: an
    artifact store that it begins with a copy of.

    Raises RuntimeError with the end of the pool's log if it does not come up.
    """

    def __init__(
        self, flags: PoolFlags, log: Path | None = None, store: Path | None = None
    ) -> None:
        self._flags = flags
        self._store = store
        self._log = log
        self.address = ""
        self._process: asyncio.subprocess.Process | None = None
        self._folder = Path()

    async def __aenter__(self) -> "Pool":
        # Short: the path of a unix socket inside may have at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="yolopool-"))
        self._log = self._log or self._folder / "log"
        if self._store is not None:
            shutil.copytree(self._store, self.data_dir / "store")
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        command = [sys.executable, "-c", COMMAND]
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *self._flags.arguments(port, self.data_dir),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._ready()
        except BaseException as error:
            tail = self._log.read_bytes()[-3000:].decode(errors="replace")
            await self._stop()
            if isinstance(error, TimeoutError | ChildProcessError):
                raise RuntimeError(
                    f"the pool did not come up; the end of its log:\n{tail}"
                ) from error
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    @property
    def data_dir(self) -> Path:
        """Where the pool keeps its store."""
        return self._folder / "data"

    def processes(self) -> tuple[Process, ...]:
        """All processes of the pool, now."""
        assert self._process is not None, "a pool has processes only inside its `async with`"
        return descendants(self._process.pid)

    def roles(self) -> dict[str, tuple[int, ...]]:
        """Pids by role, now."""
        return roles_of(self.processes())

    async def _ready(self) -> None:
        """Waits until all workers are READY and, with the demo, a model is."""
        async with AsyncClient(self.address) as client:
            while not await self._serving(client):  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(0.2)

    async def _serving(self, client: AsyncClient) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise ChildProcessError(f"the pool ended with status {self._process.returncode}")
        try:
            workers, models = await client.workers(), await client.models()
        except YolopoolError:
            return False  # not listening yet
        return is_serving(workers, models, self._flags.expected_workers, self._flags.demo)

    async def _stop(self) -> None:
        """SIGINT as a person would, then SIGKILL for the processes that are left."""
        assert self._process is not None
        left = [process.pid for process in self.processes()]
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def free_port() -> int:
    """A port of loopback that is free now, and that this process was not given before."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports go round for ever: this is a bug")


def roles_of(processes: Sequence[Process]) -> dict[str, tuple[int, ...]]:
    """Pids by role; a process that says nothing (a spawned child) has its parent's."""
    role_by_pid: dict[int, str] = {}
    for process in processes:
        inherited = role_by_pid.get(process.parent, "launcher")
        role_by_pid[process.pid] = role_of(process.command) or inherited
    return {
        role: tuple(pid for pid, own in role_by_pid.items() if own == role)
        for role in dict.fromkeys(role_by_pid.values())
    }


def role_of(command: Sequence[str]) -> str:
    """control_plane, worker, worker_io, worker_supervisor, importer, redis; else empty."""
    # Redis writes its address behind its name, into the same word.
    program = Path(command[0].split(" ")[0]).name if command else ""
    if program.startswith(("redis-server", "valkey-server")):
        return "redis"
    for flag, module in itertools.pairwise(command):
        if flag == "-m" and module == "worker":
            has_device = any(word.split("=")[0] == "--device" for word in command)
            return "worker" if has_device else "worker_supervisor"
        if flag == "-m" and module == "worker.io_processes.server":
            return "worker_io"
        if flag == "-m" and module in ("control_plane", "importer"):
            return module
    return ""

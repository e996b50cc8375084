"""A pool of real processes to be killed one by one: stores, control planes, importer, workers.

Unlike `yolopool up` nothing here starts a process again by itself: a scenario says when.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil
from redis.exceptions import RedisError

from benchmarks.harness.pool import free_port
from benchmarks.harness.processes import in_sessions
from tests.chaos.doors import ControlPlaneDoor, WorkerDoor
from tests.chaos.grounds.certified import Certified
from tests.chaos.grounds.clocks import Clocks
from tests.chaos.grounds.disk import Disk
from tests.chaos.grounds.ground import Ground
from tests.chaos.grounds.hosts import Hosts
from tests.chaos.grounds.memory_limit import MemoryLimit
from tests.chaos.process import Process
from tests.chaos.stores import Movable, OneServer, Replicated, Store
from worker.hardware.devices import find
from yolopool.errors import YolopoolError

START_LIMIT_S = 60.0
# Levels of grey that hang, crash and break a simulated device, for those workers that have a
# supervisor.
HANGS, CRASHES, BREAKS = 10, 15, 5
SABOTAGE = (f"sim-faults=hang={HANGS},crash={CRASHES},sticky={BREAKS}", "hang-floor-s=2")
POLL_S = 0.1

Probe = Callable[[], Awaitable[str]]
DeviceKind = Literal["sim", "cpu"]
StoreKind = Literal["one", "movable", "sentinels"]
GROUNDS: Mapping[str, type[Ground]] = {
    "loopback": Ground,
    "hosts": Hosts,
    "disk": Disk,
    "clocks": Clocks,
    "memory": MemoryLimit,
    "certificates": Certified,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of what, on which store and ground; `supervised`: each worker's process has a
    supervisor, which is what is started and stopped here. `worker_flags`: of each worker, too.
    `releases`: by process, the folder of another release's packages, from which it starts.
    """

    device: DeviceKind = "sim"
    control_planes: int = 2
    workers: int = 3
    store: StoreKind = "one"
    ground: str = "loopback"
    supervised: bool = False
    worker_flags: tuple[str, ...] = ()
    releases: Mapping[str, Path] = field(default_factory=dict)


class Pool:
    """`async with Pool(shape, folder) as pool`: all serve inside, all are gone after.

    `folder` must be empty and of a short path (there is a unix socket in it). Entering raises
    AssertionError with what is missing and the last words of all processes.
    """

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape = shape
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self.control_planes: dict[str, ControlPlaneDoor] = {}
        self.workers: dict[str, WorkerDoor] = {}
        self.http: dict[str, str] = {}
        self.ground = GROUNDS[shape.ground](folder)
        self.store: Store

    async def __aenter__(self) -> "Pool":
        try:
            self.ground.open()
            self.store = self._new_store()
            await self.store.open()
            # In turn: a sentinel asks its master for replicas when it starts, then seldom.
            for name, command in self.store.commands.items():
                self._add(name, command).start()
                await self._must(name, partial(self.store.complaint, name))
            await self._must("the store", self.store.complaint)
            self._add_control_planes()
            self._add_others()
            for process in self.processes.values():
                if not process.is_running:
                    process.start()
            await self._must("the pool", self.incomplete)
        except BaseException:
            await self.stop()
            self.ground.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        self.ground.close()

    async def stop(self) -> tuple[str, ...]:
        """Ends all, stores last; answers who had to be killed. Idempotent. The logs are there."""
        await asyncio.gather(*(door.close() for door in self.control_planes.values()))
        await asyncio.gather(*(door.close() for door in self.workers.values()))
        stores = set(self.store.commands)
        first = [one for name, one in self.processes.items() if name not in stores]
        last = [one for name, one in self.processes.items() if name in stores]
        stubborn = []
        for group in (first, last):
            ended = await asyncio.gather(*(one.stop() for one in group))
            stubborn += [one.name for one, itself in zip(group, ended, strict=True) if not itself]
        await self.store.close()
        return tuple(stubborn)

    def left_behind(self) -> tuple[int, ...]:
        """Pids of this pool that live now, those included whose own parent was killed."""
        return in_sessions({pid for one in self.processes.values() for pid in one.pids})

    async def incomplete(self) -> str:
        """What is missing of the whole: a process, a control plane that does not serve, a worker
        that one of them does not see READY, a store it does not reach. Empty: nothing.
        """
        down = [name for name, process in self.processes.items() if not process.is_running]
        if down:
            return f"not running: {', '.join(down)}"
        for door in self.control_planes.values():
            fleet = await door.client.fleet()
            states = {one.id: one.state for one in await door.client.workers()}
            unready = [name for name in self.workers if states.get(name) != "READY"]
            if unready or not fleet.registry_available or not fleet.reconciler:
                return (
                    f"{door.name}: workers {unready} not READY, store {fleet.registry_available}, "
                    f"reconciler {fleet.reconciler or 'none'}"
                )
        return ""

    async def healed(self, limit_s: float) -> str:
        """Waits until nothing is missing; the last complaint, empty if there is none."""
        return await settled(self.incomplete, limit_s)

    async def reconciler(self) -> str:
        """The process that decides, by its own word; empty: none does now."""
        for name in self.control_planes:
            if self.processes[name].is_running and await self.decides(name):
                return name
        return ""

    def child(self, name: str) -> int:
        """The pid of a supervised worker's process; 0: there is none now."""
        supervisor = psutil.Process(self.processes[name].pids[-1])
        return max((child.pid for child in supervisor.children()), default=0)

    async def next_child(self, name: str, before: Collection[int]) -> int:
        """Waits for a process of a supervised worker that is none of these."""
        async with asyncio.timeout(START_LIMIT_S):
            while (pid := self.child(name)) in (0, *before):  # noqa: ASYNC110 - others' state
                await asyncio.sleep(POLL_S)
        return pid

    async def decides(self, name: str) -> bool:
        """Whether a control plane says that it is the one that decides."""
        fleet = await self.control_planes[name].client.fleet()
        return fleet.reconciler == fleet.control_plane

    def last_words(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {p.name}\n{p.last_words()}" for p in self.processes.values())

    async def _must(self, what: str, probe: Probe) -> None:
        complaint = await settled(probe, START_LIMIT_S)
        assert not complaint, f"{what} did not come up: {complaint}\n{self.last_words()}"

    def _new_store(self) -> Store:
        if self.shape.store == "one":
            return OneServer(self.folder, self.ground)
        return Movable(self.folder) if self.shape.store == "movable" else Replicated(self.folder)

    def _add_control_planes(self) -> None:
        ground, scheme = self.ground, "https" if self.ground.ca else "http"
        for number in range(self.shape.control_planes):
            name, port, http = f"control-plane-{number}", free_port(), free_port()
            self._add_module(
                name,
                "control_plane",
                f"--data-dir={self.folder / 'data'}",  # one artifact store for all
                f"--port={port}",
                f"--http-port={http}",
                f"--redis={self.store.url}",
            )
            self.control_planes[name] = ControlPlaneDoor(
                name, f"{ground.address(name)}:{port}", ground.ca
            )
            self.http[name] = f"{scheme}://{ground.address(name)}:{http}"

    def _inner_address(self, name: str) -> str:
        """Where the pool's own processes reach a control plane."""
        if isinstance(self.ground, Certified):
            return f"{self.ground.address(name)}:{self.ground.pool_port(name)}"
        return self.control_planes[name].client.address

    def _add_others(self) -> None:
        known = f"--control-planes={','.join(map(self._inner_address, self.control_planes))}"
        self._add_module("importer", "importer", known, f"--scratch-dir={self.folder / 'scratch'}")
        for number in range(self.shape.workers):
            name, port = f"worker-{number}", free_port()
            asked = "cpu" if self.shape.device == "cpu" else f"sim:{number}"
            kind = "cpu" if self.shape.device == "cpu" else "sim:1"
            device = find(asked, os.environ, compute_threads=1)
            self._add_module(
                name,
                "worker",
                known,
                f"--devices={kind}" if self.shape.supervised else f"--device={device.id}",
                *(f"--{flag}" for flag in SABOTAGE if self.shape.supervised),
                f"--id={name}",
                f"--port={port}",
                f"--data-dir={self.folder / name}",
                "--compute-threads=1",
                *self.shape.worker_flags,
                environ=device.environment,
            )
            self.workers[name] = WorkerDoor(
                name, f"{self.ground.address(name)}:{port}", self.ground.certificates
            )

    def _add_module(
        self, name: str, module: str, *flags: str, environ: Mapping[str, str] | None = None
    ) -> None:
        of_ground = self.ground.flags(name, module)
        command = [sys.executable, "-m", module, *flags, *of_ground, "--die-with-parent"]
        self._add(name, command, environ)

    def _add(
        self, name: str, command: list[str], environ: Mapping[str, str] | None = None
    ) -> Process:
        environ = {**(environ or {}), **self.ground.environment(name)}
        line = self.ground.command(name, command)
        process = Process(name, line, self.folder / f"{name}.log", environ)
        process.release = self.shape.releases.get(name)
        self.processes[name] = process
        return process


async def settled(probe: Probe, limit_s: float) -> str:
    """Asks until nothing is wrong any more; answers the last complaint, empty if none is left."""
    until = time.monotonic() + limit_s
    while True:
        try:
            complaint = await probe()
        except (YolopoolError, RedisError, OSError) as error:
            complaint = f"{type(error).__name__}: {error}"
        if not complaint or time.monotonic() >= until:
            return complaint
        await asyncio.sleep(POLL_S)

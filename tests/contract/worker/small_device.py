"""A simulated device with memory for few models, and the replicas on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from tests.models import Zoo
from worker.backends.simulated import CONTEXT_BYTES, SimulatedBackend, TimeCurve
from worker.batching.config import BatchingConfig
from worker.engine.engine import Engine
from worker.engine.request import Request
from worker.engine.runner import Outcome
from worker.hardware.device_stand import DeviceObserver
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from worker.replicas.device_monitor import DeviceMonitor
from worker.replicas.ledger import Ledger
from worker.replicas.pack_reader import TierLimits
from worker.replicas.probing.probes import Upkeep
from worker.replicas.replica import Assignment, Replica
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from yolopool.server.clock import Clock
from yolopool.v1 import types_pb2
from yolopool.vocabulary import ReplicaState

CLOCK = Clock(time.monotonic, time.time)


class SmallDevice:
    """Replicas on a simulated device that has memory for so many of the demo model."""

    def __init__(
        self, engine: Engine, zoo: Zoo, folder: Path, room_for: int, max_hot: int, max_batch: int
    ) -> None:
        self.location = zoo.pack("shapes")
        door = PackStore(folder)
        self.manifest = door.fetch(self.location, weights=False).manifest
        self.weights_bytes = self.manifest.weights_bytes
        self.curve = TimeCurve(load_fixed_s=0.01)
        self.fail: Callable[[str], None] = lambda step: None
        backend = SimulatedBackend(0, 8 * 1024**3, self.curve, fail=lambda step: self.fail(step))
        backend.open()
        self.backend = backend
        self.engine = engine
        self.max_batch = max_batch
        ledger = Ledger(
            CONTEXT_BYTES + room_for * self.weights_bytes + self.workspace(max_batch),
            CONTEXT_BYTES,
            max_replicas=max_hot,
        )
        tiers = TierLimits(has_host_tier=True, host_bytes=0, fetch_weights=False)
        held: dict[str, Replica] = {}
        self.swapper = Swapper(engine, backend, door, ledger, tiers, held, lambda: None, CLOCK)
        self.replicas = ReplicaTable(
            held,
            self.swapper,
            engine,
            partial(door.fetch, weights=False),
            max_batch,
            100 * self.weights_bytes,
            lambda: None,
            CLOCK,
        )

    @property
    def ledger(self) -> Ledger:
        return self.swapper.ledger

    def workspace(self, batch: int) -> int:
        pixels = 320 * 320 * batch
        return pixels * self.manifest.activation_bytes_per_megapixel // 10**6 + pixels * 15

    def order(self, name: str, pinned: bool = False) -> Assignment:
        settings = types_pb2.VersionSettings(image_size=320)
        limit = self.max_batch
        return Assignment(f"{name}@1", name, 1, settings, self.location, "fp32", limit, pinned)

    def states(self) -> dict[str, ReplicaState]:
        return {replica.order.model: replica.state for replica in self.replicas.held()}

    def hot(self) -> set[str]:
        return {name for name, state in self.states().items() if state is ReplicaState.HOT}

    async def infer(
        self,
        name: str,
        deadline_s: float = 60.0,
        priority: int = 1,
        shape: tuple[int, int] = (320, 320),
        level: int = 0,
    ) -> Outcome:
        with self.replicas.ticket(f"{name}@1"):
            return await self.engine.submit(
                Request(
                    f"{name}@1",
                    NmsOptions((0.25,) * 3, 0.7, 300, agnostic=False),
                    priority,
                    time.monotonic() + deadline_s,
                    BatchingConfig(self.max_batch),
                ),
                np.full((*shape, 3), level, np.uint8),
            )

    def assert_exact(self) -> None:
        """The ledger says what the device says, and both within the budget."""
        held = self.ledger.context_bytes + self.ledger.weights_bytes
        assert self.backend.memory().used_bytes == held
        assert self.ledger.load_transient_bytes == 0
        assert self.ledger.free_bytes >= 0
        assert set(self.ledger.committed) == set(self.engine.models)


@asynccontextmanager
async def small_device(
    zoo: Zoo, folder: Path, room_for: int = 2, max_hot: int = 0, max_batch: int = 1
) -> AsyncIterator[SmallDevice]:
    engine = Engine(64, time.monotonic)
    engine.start()
    here = SmallDevice(engine, zoo, folder, room_for, max_hot, max_batch)
    swapping = asyncio.create_task(here.swapper.run())
    try:
        yield here
    finally:
        swapping.cancel()
        await asyncio.wait([swapping])
        await here.replicas.close()
        await engine.stop(5)


def monitor_of(
    here: SmallDevice,
    recycled: list[str],
    drift_limit: int = 0,
    rewarm_idle_s: float = 0.0,
    upkeep: Upkeep | None = None,
) -> DeviceMonitor:
    device_monitor = DeviceMonitor(
        here.backend,
        here.swapper,
        here.replicas.held,
        upkeep or Upkeep(rewarm_idle_s),
        drift_limit,
        recycled.append,
        DeviceObserver("sim:0", lambda: here.engine.passed.busy_s, time.monotonic),
        time.monotonic,
    )
    device_monitor.configured_bytes = here.ledger.budget_bytes
    return device_monitor

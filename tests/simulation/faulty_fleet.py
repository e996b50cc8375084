"""A fleet that things happen to: workers die or fall silent, loads fail, the store goes away.

What happens when is drawn from a seed. What must hold all the time is looked at all the time.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.fleet import Fleet, play
from benchmarks.simulation.shells import LEASE_S, Shape
from benchmarks.simulation.sizes import SIZES, Model
from benchmarks.simulation.traces import Trace, zipf_trace
from benchmarks.simulation.worker import Worker
from control_plane.scheduling.plan import plan
from control_plane.types.command import Blocked, Command
from control_plane.types.desired import Want, WantSource
from yolopool.errors import LoadFailed

LOOK_S = 0.02
# After the last request: leases run out, failed loads are tried again, pins come back.
REST_S = 90.0
# Refusals that a fault may end in; anything else is a bug.
EXPECTED = frozenset(
    {
        "DEADLINE_EXCEEDED", "DRAINING", "LEDGER_FULL", "LOAD_FAILED", "NO_WORKER", "NOT_ASSIGNED",
        "PACK_NOT_FOUND", "QUEUE_FULL", "WORKER_LOST",
    }
)  # fmt: skip


@dataclass(slots=True)
class Scenario:
    """Drawn from a seed: models of several sizes, devices with room for some of them, requests at
    a modest rate, and what goes wrong.
    """

    seed: int
    models: Sequence[Model] = ()
    shapes: list[Shape] = field(default_factory=list)
    trace: Trace = field(init=False)
    pinned: int = 0
    loads_fail: float = 0.0
    faults: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        count = rng.randint(4, 14)
        self.models = [SIZES[rng.choice("nnssm")] for _ in range(count)]
        largest = max(model.weights_bytes for model in self.models)
        whole = sum(model.weights_bytes for model in self.models)
        for _ in range(rng.randint(1, 3)):
            room = largest + int(rng.uniform(0.1, 0.6) * whole)
            self.shapes.append(Shape(room, beneath=rng.random() < 0.5))
        self.trace = zipf_trace(self.models, rng.uniform(0.5, 1.2), 300, 5.0, self.seed)
        self.pinned = rng.randrange(count)
        self.loads_fail = rng.choice([0.0, 0.0, 0.05])
        for _ in range(rng.randint(0, 4)):
            kind = rng.choice(["die", "silent", "store away"])
            self.faults.append((rng.uniform(2.0, 50.0), kind))
        self.faults.sort()


@dataclass(slots=True)
class Run:
    """One scenario, carried out; `wrong` is what must not be."""

    scenario: Scenario
    fleet: Fleet
    rng: random.Random
    wrong: list[str] = field(default_factory=list)
    failed_loads: int = 0
    is_over: bool = False

    async def carry_out(self) -> list[Command]:
        """Answers what a plan would still do at the end."""
        fleet, loop = self.fleet, self.fleet.loop
        await fleet.start()
        for worker in fleet.workers.values():
            self._watch(worker)
        await self._pin(self.scenario.pinned)
        looking = loop.create_task(self._look())
        hurting = loop.create_task(self._hurt())
        await play(fleet, self.scenario.trace)
        await hurting
        self.is_over = True
        await asyncio.sleep(REST_S)
        await asyncio.gather(looking)
        left = plan(fleet.brain.view.snapshot(), loop.time())
        return [command for command in left if not isinstance(command, Blocked)]

    async def _pin(self, id_: int) -> None:
        now, key = self.fleet.brain.clock.unix(), self.fleet.keys[id_]
        want = Want(key, replicas=1, pinned=True, source=WantSource.ADMIN, since_unix_s=now)
        deadline = self.fleet.loop.time() + 10.0
        await self.fleet.brain.loads.load(want, wait=False, deadline_s=deadline)

    # --- what goes wrong --------------------------------------------------------------------

    async def _hurt(self) -> None:
        begin = self.fleet.loop.time()
        for at, kind in self.scenario.faults:
            await asyncio.sleep(max(0.0, begin + at - self.fleet.loop.time()))
            if kind == "store away":
                self.fleet.store.is_away = True
                await asyncio.sleep(self.rng.uniform(0.5, 5.0))
                self.fleet.store.is_away = False
            elif kind == "silent":
                await self._silence(self.rng.choice(self._alive()))
            else:
                await self._kill(self.rng.choice(self._alive()))

    async def _silence(self, worker: Worker) -> None:
        worker.is_silent = True
        await asyncio.sleep(self.rng.uniform(0.5, 3.0) * LEASE_S)
        worker.is_silent = False

    async def _kill(self, worker: Worker) -> None:
        await worker.die()
        await asyncio.sleep(self.rng.uniform(0.1, 3.0) * LEASE_S)
        self._watch(self.fleet.start_worker(int(worker.id[1:])))

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.fleet.workers.values() if not worker.is_dead]

    def _fail(self, step: str) -> None:
        if step == "load" and not self.is_over and self.rng.random() < self.scenario.loads_fail:
            self.failed_loads += 1
            raise LoadFailed("the device does not like it: try again")

    # --- what must hold ---------------------------------------------------------------------

    def _watch(self, worker: Worker) -> None:
        worker.hands.backend.fail = self._fail
        worker.hands.backend.moved = self._moving(worker, worker.hands.backend.moved)

    def _moving(
        self, worker: Worker, tell: Callable[[str, bool], None]
    ) -> Callable[[str, bool], None]:
        def moved(digest: str, came: bool) -> None:
            tell(digest, came)
            for one in worker.hands.held.values():
                # Of two that were pinned while one of them was not heard of, one goes.
                others = [other for other in self._alive() if other is not worker]
                is_elsewhere = any(other.has_ready(one.key) for other in others)
                if not came and one.pinned and one.order.pack.digest == digest and not is_elsewhere:
                    self._note(f"{worker.id} dropped {one.key}, which is pinned")

        return moved

    async def _look(self) -> None:
        while not self.is_over:
            for worker in self._alive():
                ledger, backend = worker.hands.swapper.ledger, worker.hands.backend
                if ledger.free_bytes < 0:
                    self._note(f"{worker.id} promised {-ledger.free_bytes} bytes too many")
                used = backend.memory().used_bytes
                if used > ledger.budget_bytes:
                    self._note(f"{worker.id} uses {used} of {ledger.budget_bytes}")
            await asyncio.sleep(LOOK_S)

    def _note(self, wrong: str) -> None:
        self.wrong.append(f"{self.fleet.loop.time():.3f} s: {wrong}")


async def run(loop: VirtualLoop, seed: int) -> tuple[Run, list[Command]]:
    scenario = Scenario(seed)
    fleet = Fleet(loop, scenario.models, scenario.shapes, seed)
    carried = Run(scenario, fleet, random.Random(seed))
    return carried, await carried.carry_out()

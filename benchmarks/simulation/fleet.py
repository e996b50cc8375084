"""A fleet on virtual time under a trace: who calls, what is measured.

Shells and decisions are the product's (`shells`). A caller's path through the control plane is
that of `control_plane.routing.router`, without its messages.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.simulation import clock
from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.device import Store
from benchmarks.simulation.outcome import Departure, Load, Outcome
from benchmarks.simulation.shells import Brain, Shape, raising_shell_bugs
from benchmarks.simulation.sizes import Model
from benchmarks.simulation.traces import Floats, Trace
from benchmarks.simulation.worker import Link, Worker
from control_plane.routing.balancer import Reject, Send, choose
from control_plane.types.version import Imported, Pack, VersionKey, VersionSettings
from control_plane.types.worker import WorkerInfo
from yolopool.errors import DeadlineExceeded, YolopoolError

DEADLINE_S = 30.0
EXPIRY_S = 0.25
RETRIED = frozenset({"WORKER_LOST", "DRAINING", "QUEUE_FULL", "NOT_ASSIGNED"})
MOST_RETRIES = 5


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one request: whether its model was ready when it came, the seconds to its end, and the
    error's reason, empty if it was answered.
    """

    hot: bool
    latency_s: float
    error: str = ""


@dataclass(slots=True)
class Fleet:
    """`start` first. Models are by number; the log of loads and departures is in order of time."""

    loop: VirtualLoop
    models: Sequence[Model]
    shapes: Sequence[Shape]
    seed: int = 0
    loads: list[Load] = field(default_factory=list)
    drainer: list[Departure] = field(default_factory=list)
    fates: dict[int, Fate] = field(default_factory=dict)

    brain: Brain = field(init=False)
    store: Store = field(init=False)
    link: Link = field(init=False)
    keys: list[VersionKey] = field(init=False)
    workers: dict[str, Worker] = field(init=False, default_factory=dict)
    _rng: random.Random = field(init=False)
    _number: dict[str, int] = field(init=False, default_factory=dict)
    _cost_s: dict[str, float] = field(init=False, default_factory=dict)
    _processes: int = field(init=False, default=0)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)

    async def start(self) -> None:
        """Registers the models, starts the workers and waits until they have joined."""
        self._rng = random.Random(self.seed)
        digests = [f"{number:064x}" for number in range(len(self.models))]
        self._number = {digest: number for number, digest in enumerate(digests)}
        self.store = Store(dict(zip(digests, self.models, strict=True)))
        self.link = Link(self.workers)
        self.brain = Brain(self.loop, self.link)
        self.keys = [
            await self._register(number, digest, model)
            for number, (digest, model) in enumerate(zip(digests, self.models, strict=True))
        ]
        for number in range(len(self.shapes)):
            self.start_worker(number)
        for task in (self.brain.watch.run(), self.brain.reconciler.run(), self._expire()):
            self._spawn(task)
        await asyncio.sleep(1.0)

    def start_worker(self, number: int) -> Worker:
        """A new process for a device."""
        self._processes += 1
        one = Worker(
            f"w{number}",
            f"w{number}-{self._processes}",
            self.loop,
            self.shapes[number],
            self.store,
            self.brain.view,
            self._moved,
            self._took,
        )
        self.workers[one.incarnation] = one
        return one

    async def request(self, number: int, id_: int) -> None:
        """One caller's Detect, from end to end; its fate is kept under `number`."""
        key, began = self.keys[id_], self.loop.time()
        hot = any(worker.has_ready(str(key)) for worker in self.workers.values())
        try:
            await self._answer(key, began + DEADLINE_S)
            error = ""
        except YolopoolError as failure:
            error = failure.reason
        self.fates[number] = Fate(hot, self.loop.time() - began, error)

    async def _answer(self, key: VersionKey, deadline: float) -> None:
        view, excluded = self.brain.view, set[str]()
        for attempt in range(MOST_RETRIES + 1):
            worker = await self._worker(key, excluded, deadline)
            left_s = deadline - self.loop.time()
            if left_s <= 0:
                raise DeadlineExceeded(f"time ran out before {key} could be run")
            view.sent(worker.id, key)
            try:
                load = await self.link.detect(worker, key, deadline, left_s)
                view.apply_load(worker.id, load)
                return
            except YolopoolError as error:
                if error.reason == "NOT_ASSIGNED":
                    view.drop_replica(worker.id, key)
                elif excluded or error.reason not in RETRIED:
                    raise
                else:
                    excluded.add(worker.incarnation)
                if attempt == MOST_RETRIES:
                    raise
            finally:
                view.answered(worker.id, key)

    async def _worker(self, key: VersionKey, excluded: set[str], deadline: float) -> WorkerInfo:
        def settled() -> WorkerInfo | None:
            route = choose(self.brain.view, key, self.loop.time(), self._rng, excluded)
            if isinstance(route, Reject):
                raise route.error
            return route.worker if isinstance(route, Send) else None

        worker = settled()
        if worker is not None:
            return worker
        return await self.brain.loads.ensure_loaded(key, settled, deadline)

    async def _register(self, number: int, digest: str, model: Model) -> VersionKey:
        registry = self.brain.registry
        pack = Pack(
            digest, model.size, "detect", ("object",), model.weights_bytes, 0, model.parameters
        )
        made = await registry.register(
            f"m{number:04d}",
            digest,
            VersionSettings(),
            "",
            f"r{number}",
            self.brain.clock.unix(),
            imported=Imported(pack, VersionSettings(image_size=32)),
        )
        return made.key

    async def _expire(self) -> None:
        while True:
            for worker in self.brain.view.expire(self.loop.time()):
                await self.link.drop(worker)
            await asyncio.sleep(EXPIRY_S)

    def _moved(self, digest: str, came: bool) -> None:
        number, now = self._number[digest], self.loop.now()
        if came:
            cost_s = self._cost_s.pop(digest, 0.0) + self.models[number].copy_s
            self.loads.append(Load(now, number, cost_s))
        else:
            self.drainer.append(Departure(now, number))

    def _took(self, digest: str, seconds: float) -> None:
        self._cost_s[digest] = self._cost_s.get(digest, 0.0) + seconds

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self.loop.create_task(work))


async def play(fleet: Fleet, trace: Trace) -> Trace:
    """Sends a trace to a fleet that was started, and waits until all of it is answered; answers
    the trace with the moments at which its requests were sent, from the first on.
    """
    begin_s = fleet.loop.time()
    calls = _closed(fleet, trace) if trace.callers else _open(fleet, trace)
    at = np.zeros(len(trace))
    await calls(at)
    return replace(trace, at=at - begin_s)


def _open(fleet: Fleet, trace: Trace) -> Callable[[Floats], Coroutine[Any, Any, None]]:
    async def send(at: Floats) -> None:
        begin_s = fleet.loop.time()
        async with asyncio.TaskGroup() as calls:
            for number, id_ in enumerate(trace.ids.tolist()):
                await asyncio.sleep(begin_s + trace.at[number] - fleet.loop.time())
                at[number] = fleet.loop.time()
                calls.create_task(fleet.request(number, id_))

    return send


def _closed(fleet: Fleet, trace: Trace) -> Callable[[Floats], Coroutine[Any, Any, None]]:
    async def send(at: Floats) -> None:
        numbers = iter(range(len(trace)))

        async def caller() -> None:
            for number in numbers:
                at[number] = fleet.loop.time()
                await fleet.request(number, int(trace.ids[number]))

        async with asyncio.TaskGroup() as callers:
            for _ in range(trace.callers):
                callers.create_task(caller())

    return send


def outcome(policy: str, trace: Trace, fleet: Fleet, begin_s: float) -> Outcome:
    """What a fleet made of a trace that began at `begin_s`."""
    fates = [fleet.fates[number] for number in range(len(trace))]
    hot = np.array([fate.hot for fate in fates])
    latency_s = np.array([np.nan if fate.error else fate.latency_s for fate in fates])
    runs_s = np.array([model.pass_s for model in trace.models])[trace.ids]
    return Outcome(
        policy,
        trace,
        hot,
        latency_s,
        np.where(hot, 0.0, latency_s - runs_s),
        [replace(load, at=load.at - begin_s) for load in fleet.loads],
        [replace(left, at=left.at - begin_s) for left in fleet.drainer],
    )


def simulate(policy: str, trace: Trace, shapes: Sequence[Shape]) -> Outcome:
    """A whole run: a fresh fleet with these devices, one trace."""

    async def main(loop: VirtualLoop) -> Outcome:
        with raising_shell_bugs():
            fleet = Fleet(loop, trace.models, shapes, trace.seed)
            await fleet.start()
            begin_s = loop.time()
            return outcome(policy, await play(fleet, trace), fleet, begin_s)

    return clock.run(main)


FLEETS: dict[str, Callable[[Trace], list[Shape]]] = {
    "pool, no tier": lambda trace: [Shape(trace.room_bytes, beneath=False)],
    "pool, a tier beneath": lambda trace: [Shape(trace.room_bytes, beneath=True)],
    "pool, 4 workers": lambda trace: [Shape(trace.room_bytes // 4, beneath=False)] * 4,
}

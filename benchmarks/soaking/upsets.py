"""What is done to a pool during a soak, in an order that a seed decides: faults of one part at a
time, each mended after seconds, and the loads and changeovers of those who run it.

Nothing here needs more rights than the pool's own user has. What is killed is always one of the
same few, so that the others' curves go through the whole run.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from control_plane.store.redis import redis_keys as keys
from tests.chaos.pool import Pool
from tests.chaos.stores import connected
from yolopool.client.async_client import AsyncClient
from yolopool.errors import YolopoolError

# Who is killed. All the others live from the first moment to the last.
MORTAL_CONTROL_PLANE, MORTAL_WORKER = "control-plane-1", "worker-2"
AWAY_S = (2.0, 6.0)
CALL_S = 20.0
# Generous: how long it takes is measured elsewhere, and the machine may do other things.
HEAL_S = 180.0

Upset = Callable[["Troubled"], Awaitable[None]]


@dataclass(slots=True)
class Troubled:
    """A pool, the models that come and go on it, and what an upset draws its lots with."""

    pool: Pool
    many: Sequence[str]
    rng: Random
    refused: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(*AWAY_S))

    @property
    def door(self) -> AsyncClient:
        return self.pool.control_planes["control-plane-0"].client


# --- faults ---------------------------------------------------------------------------------------


async def kill_a_control_plane(on: Troubled) -> None:
    process = on.pool.processes[MORTAL_CONTROL_PLANE]
    process.kill()
    await process.ended(CALL_S)
    await on.pause()
    process.start()


async def kill_a_worker(on: Troubled) -> None:
    """Its supervisor starts another."""
    if pid := on.pool.child(MORTAL_WORKER):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def kill_the_importer(on: Troubled) -> None:
    process = on.pool.processes["importer"]
    process.kill()
    await process.ended(CALL_S)
    process.start()


async def freeze_a_control_plane(on: Troubled) -> None:
    process = on.pool.processes[on.rng.choice(sorted(on.pool.control_planes))]
    process.freeze()
    await asyncio.sleep(on.rng.uniform(1.0, 3.5))
    process.thaw()


async def freeze_a_worker(on: Troubled) -> None:
    pid = on.pool.child(on.rng.choice(sorted(on.pool.workers)))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        await on.pause()
        os.kill(pid, signal.SIGCONT)


async def freeze_the_store(on: Troubled) -> None:
    process = on.pool.processes["redis"]
    process.freeze()
    await on.pause()
    process.thaw()


async def lose_a_part(on: Troubled) -> None:
    async with connected(on.pool.store.url) as redis:
        await redis.delete(on.rng.choice((*keys.COUNTED, keys.META, keys.LOG, keys.LEASE)))


async def empty_the_store(on: Troubled) -> None:
    async with connected(on.pool.store.url) as redis:
        await redis.flushall()


async def refuse_writes(on: Troubled) -> None:
    async with connected(on.pool.store.url) as redis:
        await redis.replicaof("127.0.0.1", "1")
        await on.pause()
        await redis.replicaof("NO", "ONE")


async def fill_the_memory(on: Troubled) -> None:
    async with connected(on.pool.store.url) as redis:
        await redis.config_set("maxmemory", 1)
        await on.pause()
        await redis.config_set("maxmemory", 0)


async def exhaust_descriptors(on: Troubled) -> None:
    process = on.pool.processes[on.rng.choice((*sorted(on.pool.control_planes), "redis"))]
    process.deny_descriptors()
    await on.pause()
    process.allow_descriptors()


FAULTS: Mapping[str, Upset] = {
    "kill -9 a control plane": kill_a_control_plane,
    "kill -9 a worker": kill_a_worker,
    "kill -9 the importer": kill_the_importer,
    "freeze a control plane": freeze_a_control_plane,
    "freeze a worker": freeze_a_worker,
    "freeze Redis": freeze_the_store,
    "a part of Redis lost": lose_a_part,
    "empty Redis": empty_the_store,
    "Redis read-only": refuse_writes,
    "Redis out of memory": fill_the_memory,
    "no descriptors left": exhaust_descriptors,
}

# --- work -----------------------------------------------------------------------------------------


async def load_and_unload(on: Troubled) -> None:
    model = on.rng.choice(on.many)
    await on.door.load(model, replicas=on.rng.choice((1, 2)), timeout_s=CALL_S)
    await on.pause()
    await on.door.unload(model, timeout_s=CALL_S)


async def change_over(on: Troubled) -> None:
    come, *go = on.rng.sample(list(on.many), 4)
    await on.door.changeover([come], go, timeout_s=CALL_S)
    await on.pause()
    await on.door.unload(come, timeout_s=CALL_S)


WORK: Mapping[str, Upset] = {
    "load and unload": load_and_unload,
    "a changeover": change_over,
}


async def trouble(on: Troubled, every_s: float) -> None:
    """One fault after the other in shuffled rounds, with work between, until told to stop; `done`
    counts them. Whole again before the next, and at the end.

    Raises AssertionError if the pool does not heal.
    """
    while not on.stopping.is_set():
        for name in on.rng.sample(sorted(FAULTS), len(FAULTS)):
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s * on.rng.uniform(0.5, 1.0)):
                    await on.stopping.wait()
            if on.stopping.is_set():
                return
            await _work(on)
            await FAULTS[name](on)
            on.done[name] = on.done.get(name, 0) + 1
            complaint = await on.pool.healed(HEAL_S)
            assert not complaint, f"after {name}: {complaint}\n{on.pool.last_words()}"


async def _work(on: Troubled) -> None:
    name = on.rng.choice(sorted(WORK))
    try:
        await WORK[name](on)
    except YolopoolError as error:
        on.refused.append(f"{name}: {error.reason}: {error.message}")
    else:
        on.done[name] = on.done.get(name, 0) + 1

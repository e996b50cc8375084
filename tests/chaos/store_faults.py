"""Faults of the store beyond its end: a part of it gone, no writes, no memory, no answer in time,
and a failover that leaves old connections alive. Loaded models are answered throughout.
"""

import asyncio
from collections.abc import Sequence

from control_plane.store.redis import redis_keys as keys
from tests.chaos import invariants
from tests.chaos.setting import LOAD_S, SPARE
from tests.chaos.stores import Movable, connected
from tests.chaos.trial import Scenario, Trial
from yolopool.errors import RegistryRefusesWrites, RegistryUnavailable, YolopoolError

# What an eviction policy may drop: any key, as a whole. Those whose loss must be made good first.
PARTS = (*keys.COUNTED, keys.META, keys.LOG, keys.LEASE, keys.WORKERS, keys.FOOTPRINTS, keys.EVENTS)
LACKED = (keys.VERSIONS, keys.WANTS, keys.NUMBERS, keys.META)
# Each way, of a store that answers late: a plan's writes must still fit into half the leader's
# lease. A slower one is as good as away.
LATE_S = 0.2
FULL_BYTES = 1


async def lose_a_part(trial: Trial) -> None:
    """One key after the other is gone, as an eviction policy drops them; all is put back."""
    pool = trial.pool
    victims = list(dict.fromkeys((*LACKED, *PARTS)))
    if trial.pace.parts:
        others = [key for key in victims if key not in LACKED]
        victims = [trial.rng.choice(LACKED), *trial.rng.sample(others, trial.pace.parts - 1)]
    trial.strike()
    for victim in victims:
        began = trial.now()
        async with connected(pool.store.url) as redis:
            await redis.delete(victim)

        async def restored() -> str:
            lacks = await invariants.store_lacks(pool, trial.before)
            return lacks or await invariants.registry_differs(pool, trial.before)

        if not await trial.expect(f"the registry is whole again without {victim}", restored):
            return
        restored_s = trial.now() - began
        trial.seconds["restored_s"] = max(restored_s, trial.seconds.get("restored_s", 0.0))
        # By one of them: which may be the one that has yet to notice.
        await trial.expect_load(trial.rng.choice(sorted(pool.control_planes)))
    await trial.expect_whole()


async def refuse_writes(trial: Trial) -> None:
    """The store becomes a replica of nobody: it answers reads, and no write, on connections that
    live on.
    """
    async with connected(trial.pool.store.url) as redis:
        trial.strike()
        await redis.replicaof("127.0.0.1", "1")  # where nobody listens
        await _refused(trial, RegistryRefusesWrites.reason)
        await redis.replicaof("NO", "ONE")
    await _takes_writes_again(trial)


async def fill_the_memory(trial: Trial) -> None:
    """maxmemory is reached, and nothing may be evicted: every write is refused."""
    async with connected(trial.pool.store.url) as redis:
        trial.strike()
        await redis.config_set("maxmemory", FULL_BYTES)
        await _refused(trial, RegistryRefusesWrites.reason)
        await redis.config_set("maxmemory", 0)
    await _takes_writes_again(trial)


async def freeze_the_store(trial: Trial) -> None:
    """SIGSTOP: connections stay open and nobody answers on them. Then SIGCONT."""
    processes = [trial.pool.processes[name] for name in trial.pool.store.commands]
    trial.strike(*(process.freeze for process in processes))
    await _refused(trial, RegistryUnavailable.reason)
    for process in processes:
        process.thaw()
    await _takes_writes_again(trial)


async def kill_the_store(trial: Trial) -> None:
    """SIGKILL: what it wrote to its file last may be lost; then it starts again."""
    processes = [trial.pool.processes[name] for name in trial.pool.store.commands]
    trial.strike(*(process.kill for process in processes))
    await _refused(trial, RegistryUnavailable.reason)
    for process in processes:
        process.start()
    await trial.expect("the store answers", trial.pool.store.complaint)
    await _takes_writes_again(trial)


async def slow_the_store(trial: Trial) -> None:
    """Each command and each answer takes 0.2 s: loads take longer, and work."""
    store = trial.pool.store
    assert isinstance(store, Movable), "the scenario asks for one"
    trial.strike()
    store.relay.delay_s = LATE_S
    await trial.expect_load("control-plane-0", "a load works, slowly")
    await asyncio.sleep(trial.pace.store_away_s)
    store.relay.delay_s = 0.0
    await _takes_writes_again(trial)


async def move_the_store(trial: Trial) -> None:
    """A failover without sentinels: the name leads to the new master, open connections to the old
    one, which is a replica now and answers READONLY.
    """
    store = trial.pool.store
    assert isinstance(store, Movable), "the scenario asks for one"
    trial.strike()
    await store.fail_over()
    began = trial.now()
    await _takes_writes_again(trial)
    trial.seconds["moved_s"] = trial.now() - began


async def _refused(trial: Trial, reason: str) -> None:
    """For a while every control plane refuses a load, and says why."""
    until = trial.now() + trial.pace.store_away_s
    names = list(trial.pool.control_planes)

    async def told() -> str:
        said = await asyncio.gather(*(_said(trial, name) for name in names))
        wrong = [f"{name}: {one}" for name, one in zip(names, said, strict=True) if one != reason]
        return ", ".join(wrong)

    await trial.expect(f"writes are refused as {reason}", told)
    await asyncio.sleep(max(0.0, until - trial.now()))


async def _said(trial: Trial, name: str) -> str:
    try:
        await trial.pool.control_planes[name].client.load(SPARE, timeout_s=LOAD_S)
    except YolopoolError as error:
        return error.reason
    return "it takes a load that it can't keep"


async def _takes_writes_again(trial: Trial) -> None:
    await trial.expect_whole()
    for name in trial.pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


PART = Scenario("a part of Redis lost", lose_a_part)
READ_ONLY = Scenario("Redis read-only", refuse_writes)
NO_MEMORY = Scenario("Redis out of memory", fill_the_memory)
FROZEN = Scenario("freeze Redis", freeze_the_store)
KILLED = Scenario("kill -9 Redis", kill_the_store)
SLOW = Scenario("Redis slow", slow_the_store, store="movable")
MOVED = Scenario("fail over, connections kept", move_the_store, store="movable")
EVERY: Sequence[Scenario] = (PART, READ_ONLY, NO_MEMORY, FROZEN, KILLED, SLOW, MOVED)

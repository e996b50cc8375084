"""The faults that a pool must bear: each strikes, waits, repairs, and says what should be true.

A fault ends with all processes started again; what must hold afterwards is the trial's.
"""

import asyncio
from collections.abc import Callable

from tests.chaos import invariants
from tests.chaos.setting import LOAD_S, MODELS, SPARE
from tests.chaos.stores import connected
from tests.chaos.trial import Scenario, Trial
from yolopool.errors import Unavailable

# One that has just begun has yet to read the registry.
CONTROL_PLANES_GONE = frozenset({"UNAVAILABLE", "REGISTRY_UNAVAILABLE", "REGISTRY_REFUSES_WRITES"})


async def kill_the_reconciler(trial: Trial) -> None:
    """SIGKILL for the control plane that decides; the other takes over, the first comes back."""
    holder = trial.pool.processes[await trial.pool.reconciler()]
    await _taken_over(trial, holder.name, holder.kill)
    holder.start()
    await trial.expect_whole()


async def freeze_the_reconciler(trial: Trial) -> None:
    """SIGSTOP for the control plane that decides, until the other does: thawed, it goes on where
    it was, with a lease that has run out and a token that workers must not obey any more.
    """
    holder = trial.pool.processes[await trial.pool.reconciler()]
    other = await _taken_over(trial, holder.name, holder.freeze)
    holder.thaw()
    await trial.expect_whole()

    async def told() -> str:
        return f"{holder.name} decides too" if await trial.pool.reconciler() != other else ""

    await trial.expect("the thawed one does not decide", told)


async def _taken_over(trial: Trial, holder: str, blow: Callable[[], None]) -> str:
    """Strikes the one that decides; the other's name, and that it decides and is obeyed."""
    (other,) = (name for name in trial.pool.control_planes if name != holder)
    await trial.watch.look()
    obeyed = max(trial.watch.highest.values())
    trial.strike(blow)

    async def decides() -> str:
        return "" if await trial.pool.decides(other) else "it does not"

    if await trial.expect("the other control plane decides", decides):
        trial.seconds["takeover_s"] = trial.now() - trial.struck_s
    await trial.expect_load(other, "the other control plane can load")

    async def higher() -> str:
        await trial.watch.look()
        highest = max(trial.watch.highest.values())
        return "" if highest > obeyed else f"{highest} after {obeyed}"

    await trial.expect("its token is above all that were obeyed", higher, 2.0)
    return other


async def kill_the_follower(trial: Trial) -> None:
    """SIGKILL for the control plane that does not decide; it comes back."""
    process = trial.pool.processes[await _follower(trial)]
    trial.strike(process.kill)
    await asyncio.sleep(trial.pace.away_s)
    process.start()
    await trial.expect_whole()


async def freeze_the_follower(trial: Trial) -> None:
    """SIGSTOP for the control plane that does not decide, then SIGCONT."""
    process = trial.pool.processes[await _follower(trial)]
    trial.strike(process.freeze)
    await asyncio.sleep(trial.pace.away_s)
    process.thaw()
    await trial.expect_whole()


async def _follower(trial: Trial) -> str:
    leader = await trial.pool.reconciler()
    (follower,) = (name for name in trial.pool.control_planes if name != leader)
    return follower


async def kill_a_worker(trial: Trial) -> None:
    """SIGKILL for a worker whose models live elsewhere too; it comes back empty."""
    victim = await _a_holder(trial)
    trial.strike(trial.pool.processes[victim].kill)
    await asyncio.sleep(trial.pace.away_s)
    trial.pool.processes[victim].start()
    await trial.expect_whole()


async def freeze_a_worker(trial: Trial) -> None:
    """SIGSTOP for a worker: its connections stay open and nobody answers. Then SIGCONT."""
    process = trial.pool.processes[await _a_holder(trial)]
    trial.strike(process.freeze)
    await asyncio.sleep(trial.pace.away_s)
    process.thaw()
    await trial.expect_whole()


async def stop_the_store(trial: Trial) -> None:
    """The store ends in order and comes back with what it held; writes meanwhile are refused."""
    pool = trial.pool
    processes = [pool.processes[name] for name in pool.store.commands]
    trial.strike()
    await asyncio.gather(*(process.stop() for process in processes))
    await asyncio.sleep(trial.pace.store_away_s)

    async def refused() -> str:
        for name, door in pool.control_planes.items():
            try:
                await door.client.load(SPARE, timeout_s=LOAD_S)
            except Unavailable:
                continue
            return f"{name} takes a load that it can't keep"
        return ""

    await trial.expect("writes are refused as UNAVAILABLE", refused, 0.0)
    for process in processes:
        process.start()
    await trial.expect("the store answers", pool.store.complaint)
    await trial.expect_whole()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def empty_the_store(trial: Trial) -> None:
    """FLUSHALL: the registry is put back as it was, by those who knew it."""
    pool = trial.pool
    trial.strike()
    async with connected(pool.store.url) as redis:
        await redis.flushall()

    async def restored() -> str:
        lacks = await invariants.store_lacks(pool, trial.before)
        return lacks or await invariants.registry_differs(pool, trial.before)

    if not await trial.expect("the registry is whole again", restored):
        return
    trial.seconds["restored_s"] = trial.now() - trial.struck_s
    await trial.expect_whole()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def fail_over(trial: Trial) -> None:
    """SIGKILL for the store's master: sentinels promote a replica; the old one comes back."""
    pool = trial.pool
    master = await pool.store.master()
    trial.strike(pool.processes[master].kill)

    async def promoted() -> str:
        now = await pool.store.master()
        return "" if now != master else f"{now} is still the master"

    if await trial.expect("a replica is promoted", promoted):
        trial.seconds["promoted_s"] = trial.now() - trial.struck_s
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")
    pool.processes[master].start()

    async def follows() -> str:
        await pool.store.rejoin(master)
        return await pool.store.complaint()

    await trial.expect("the old master follows", follows)
    await trial.expect_whole()


async def kill_the_control_planes(trial: Trial) -> None:
    """SIGKILL for all control planes: workers go on answering those who call them directly."""
    pool = trial.pool
    processes = [pool.processes[name] for name in pool.control_planes]
    trial.strike(*(process.kill for process in processes))
    await asyncio.sleep(trial.pace.away_s)
    for process in processes:
        process.start()
    await trial.expect_whole()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def _a_holder(trial: Trial) -> str:
    """A worker that holds a model which others hold too: by the scenario's shape, all do."""
    holders = [
        name
        for name, door in trial.pool.workers.items()
        if any(one.version.model in MODELS for one in (await door.inventory()).worker.replicas)
    ]
    return trial.rng.choice(holders)


RECONCILER = Scenario("kill -9 the reconciler", kill_the_reconciler)
FROZEN_RECONCILER = Scenario("freeze the reconciler", freeze_the_reconciler)
FOLLOWER = Scenario("kill -9 the other control plane", kill_the_follower)
FROZEN_FOLLOWER = Scenario("freeze the other control plane", freeze_the_follower)
WORKER = Scenario("kill -9 a worker", kill_a_worker)
FROZEN_WORKER = Scenario("freeze a worker", freeze_a_worker)
STORE = Scenario("stop Redis", stop_the_store)
EMPTIED = Scenario("empty Redis", empty_the_store)
FAILOVER = Scenario("fail over by Sentinel", fail_over, store="sentinels")
CONTROL_PLANES = Scenario(
    "kill -9 all control planes",
    kill_the_control_planes,
    direct=True,
    failures_allowed=CONTROL_PLANES_GONE,
)
EVERY = (
    RECONCILER,
    FROZEN_RECONCILER,
    FOLLOWER,
    FROZEN_FOLLOWER,
    WORKER,
    FROZEN_WORKER,
    STORE,
    EMPTIED,
    FAILOVER,
    CONTROL_PLANES,
)

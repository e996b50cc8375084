"""Faults between hosts, each process on one of its own: a cable pulled, a partition between two,
packets lost, a slow cable. Nobody is told that a packet is gone: there is only silence.
"""

import asyncio
from collections.abc import Sequence

from tests.chaos.grounds.hosts import Hosts
from tests.chaos.setting import MODELS
from tests.chaos.trial import Scenario, Trial


async def pull_a_worker(trial: Trial) -> None:
    """The cable of a worker whose models live elsewhere, too."""
    hosts, name = _hosts(trial), await _a_holder(trial)
    trial.strike(lambda: hosts.pull(name))
    await asyncio.sleep(trial.pace.away_s)
    hosts.plug(name)
    await trial.expect_whole()


async def pull_the_reconciler(trial: Trial) -> None:
    """The cable of the control plane that decides: the other takes over, and the first obeys it
    once it is back.
    """
    hosts, name = _hosts(trial), await trial.pool.reconciler()
    (other,) = (one for one in trial.pool.control_planes if one != name)
    trial.strike(lambda: hosts.pull(name))

    async def decides() -> str:
        return "" if await trial.pool.decides(other) else "it does not"

    if await trial.expect("the other control plane decides", decides):
        trial.seconds["takeover_s"] = trial.now() - trial.struck_s
    await trial.expect_load(other, "the other control plane can load")
    hosts.plug(name)
    await trial.expect_whole()


async def pull_the_store(trial: Trial) -> None:
    """The cable of the store: calls to it hang until their time is up."""
    hosts = _hosts(trial)
    trial.strike(lambda: hosts.pull("redis"))
    await asyncio.sleep(trial.pace.store_away_s)
    hosts.plug("redis")
    await trial.expect_whole()
    for name in trial.pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def part_the_reconciler(trial: Trial) -> None:
    """The control plane that decides and one worker do not reach each other; everyone else does:
    what that worker holds is loaded elsewhere, and it goes on answering the other control plane.
    """
    hosts, worker = _hosts(trial), await _a_holder(trial)
    name = await trial.pool.reconciler()
    trial.strike(lambda: hosts.part(name, [worker]))
    await asyncio.sleep(trial.pace.away_s)
    hosts.join(name)
    await trial.expect_whole()


async def part_from_the_workers(trial: Trial) -> None:
    """One control plane reaches no worker, and the store and its callers as before."""
    hosts = _hosts(trial)
    name = trial.rng.choice(sorted(trial.pool.control_planes))
    trial.strike(lambda: hosts.part(name, sorted(trial.pool.workers)))
    await asyncio.sleep(trial.pace.away_s)
    hosts.join(name)
    await trial.expect_whole()


async def lose_packets(trial: Trial) -> None:
    """Every tenth packet to a worker, to a control plane and to the store is lost."""
    hosts = _hosts(trial)
    names = ("redis", "control-plane-0", await _a_holder(trial))
    trial.strike(*(lambda name=name: hosts.lose(name) for name in names))
    await asyncio.sleep(trial.pace.away_s)
    for name in names:
        hosts.join(name)
    await trial.expect_whole()


async def slow_a_cable(trial: Trial) -> None:
    """Some 100 kbit/s to a worker: what is sent waits in the queue of the cable."""
    hosts, name = _hosts(trial), await _a_holder(trial)
    trial.strike(lambda: hosts.slow(name))
    await asyncio.sleep(trial.pace.away_s)
    hosts.fast(name)
    await trial.expect_whole()


def _hosts(trial: Trial) -> Hosts:
    ground = trial.pool.ground
    assert isinstance(ground, Hosts), "the scenario asks for them"
    return ground


async def _a_holder(trial: Trial) -> str:
    holders = [
        name
        for name, door in trial.pool.workers.items()
        if any(one.version.model in MODELS for one in (await door.inventory()).worker.replicas)
    ]
    return trial.rng.choice(holders)


WORKER_CABLE = Scenario("pull a worker's cable", pull_a_worker, ground="hosts")
RECONCILER_CABLE = Scenario("pull the reconciler's cable", pull_the_reconciler, ground="hosts")
STORE_CABLE = Scenario("pull Redis' cable", pull_the_store, ground="hosts")
PARTITION = Scenario("part a worker from the reconciler", part_the_reconciler, ground="hosts")
NO_WORKERS = Scenario(
    "part a control plane from all workers", part_from_the_workers, ground="hosts"
)
LOSS = Scenario("a tenth of the packets lost", lose_packets, ground="hosts")
DELAY = Scenario("a slow cable", slow_a_cable, ground="hosts")
EVERY: Sequence[Scenario] = (
    WORKER_CABLE,
    RECONCILER_CABLE,
    STORE_CABLE,
    PARTITION,
    NO_WORKERS,
    LOSS,
    DELAY,
)

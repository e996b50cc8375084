"""What must hold when a fault is over: complaints as text, empty where nothing is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.store.redis.redis_keys import VERSIONS, WANTS
from tests.chaos.pool import Pool
from tests.chaos.stores import connected
from tests.chaos.watch import Watch
from yolopool.client.model_records import ModelVersion
from yolopool.errors import StaleToken
from yolopool.v1 import types_pb2

SERVING = ("WARM", "HOT")


@dataclass(frozen=True, slots=True)
class Registered:
    """What a control plane lists of a version, and must list again when all is over."""

    state: str
    pack: str
    artifact: str
    wanted: int
    pinned: bool


Listing = Mapping[str, Registered]


async def listing(pool: Pool, name: str) -> Listing:
    """All versions by name@number, as that control plane lists them."""
    models = await pool.control_planes[name].client.models()
    return {one.name: _registered(one) for model in models for one in model.versions}


async def registry_differs(pool: Pool, before: Listing) -> str:
    """Which control plane lists other models, or wants other replicas, than before."""
    for name in pool.control_planes:
        now = await listing(pool, name)
        wrong = sorted(
            f"{key} is {now.get(key)}, was {before.get(key)}"
            for key in now.keys() | before.keys()
            if now.get(key) != before.get(key)
        )
        if wrong:
            return f"{name}: {'; '.join(wrong)}"
    return ""


async def store_lacks(pool: Pool, before: Listing) -> str:
    """What the store itself does not hold of what was registered and wanted.

    Read beside the control planes: they may not have noticed yet that it was emptied.
    """
    wanted = {key for key, one in before.items() if one.wanted}
    async with connected(pool.store.url) as redis:
        lacks = before.keys() - set(await redis.hkeys(VERSIONS))
        unwanted = wanted - set(await redis.hkeys(WANTS))
    if lacks or unwanted:
        return f"the store lacks versions {sorted(lacks)}, wants {sorted(unwanted)}"
    return ""


async def desired_differs(pool: Pool) -> str:
    """Where observed is less than desired, or not what the workers themselves say they hold.

    More is no fault: replicas are added where queues build, and fetched ahead.
    """
    held: dict[str, set[str]] = {}
    for name, worker in pool.workers.items():
        for one in (await worker.inventory()).worker.replicas:
            state = types_pb2.ReplicaState.Name(one.state).removeprefix("REPLICA_STATE_")
            if state in SERVING:
                held.setdefault(f"{one.version.model}@{one.version.version}", set()).add(name)
    for name, door in pool.control_planes.items():
        for model in await door.client.models():
            for version in model.versions:
                seen = {one.worker for one in version.replicas if one.state in SERVING}
                holders = held.get(version.name, set())
                if seen != holders or len(seen) < version.wanted_replicas:
                    return (
                        f"{name}: {version.name} is wanted {version.wanted_replicas} times, seen "
                        f"on {sorted(seen)}, held by {sorted(holders)}"
                    )
    return ""


async def stale_token_obeyed(pool: Pool) -> str:
    """Which worker takes an order under a token below one that it has obeyed."""
    for name, worker in pool.workers.items():
        highest = (await worker.inventory()).highest_token
        if (highest.epoch, highest.counter) == (0, 0):
            continue  # it has had no order yet
        below = types_pb2.FencingToken(epoch=highest.epoch - 1, counter=highest.counter + 1)
        if highest.counter:
            below = types_pb2.FencingToken(epoch=highest.epoch, counter=highest.counter - 1)
        try:
            await worker.release_nothing(below)
        except StaleToken:
            continue
        return f"{name} obeyed {below.epoch}.{below.counter}, below its highest"
    return ""


def never_seen(watch: Watch) -> dict[str, str]:
    """Complaints of the watch, by what should hold."""
    return {
        "ledgers stay within their budgets": "; ".join(watch.overruns[:3]),
        "no worker's highest token goes down": "; ".join(watch.stale[:3]),
    }


def _registered(version: ModelVersion) -> Registered:
    return Registered(
        version.state, version.pack, version.artifact, version.wanted_replicas, version.pinned
    )

"""Faults of hosts: a full disk, clocks that jump, no descriptors, no memory, and certificates that
run out. Loaded models are answered throughout, and what is refused says why.
"""

import asyncio
import io
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.harness import dataset
from tests.chaos.grounds.certified import Certified
from tests.chaos.grounds.clocks import Clocks
from tests.chaos.grounds.disk import Disk
from tests.chaos.grounds.memory_limit import MemoryLimit
from tests.chaos.setting import LOAD_S, MODELS, SPARE
from tests.chaos.stores import connected
from tests.chaos.trial import Scenario, Trial
from yolopool.client.async_client import AsyncClient
from yolopool.errors import Unavailable, YolopoolError

HOUR_S, DAY_S = 3_600, 86_400
JUMPS = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)
# Long enough that every process has looked at its clock.
CLOCK_READ_S = 1.5
# A host that has so much left, and a picture that takes more to decode.
SPARE_BYTES, HUGE = 4 * 2**20, (9_000, 9_000)
# Until every process has looked at its new certificate and connected anew with it.
TAKEN_S = 5.0
CALL_S = 5.0
OTHER_WEIGHTS = dataset.DEMO_WEIGHTS.with_name("shapes-26.pt")


async def fill_the_disk(trial: Trial) -> None:
    """The disk of all of the pool is full to the last byte; then there is room again."""
    disk, pool = trial.pool.ground, trial.pool
    assert isinstance(disk, Disk), "the scenario asks for one"
    trial.strike(disk.fill)
    trial.check("the disk is full", disk.free_bytes == 0, f"{disk.free_bytes} bytes are free")
    until = trial.now() + trial.pace.store_away_s
    said = await _said(trial, "control-plane-0")
    trial.check("a load says why it fails, or works", said in (*FULL_DISK, "OK"), said)
    said = await _upload(trial, "chaos/another")
    trial.check("an upload says why it fails", said in FULL_DISK, said)
    await asyncio.sleep(max(0.0, until - trial.now()))
    disk.free()
    await trial.expect_whole()
    said = await _upload(trial, "chaos/another")
    trial.check("it goes on once there is room", said == "OK", said)
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


# Of a disk that has no room for an upload, or for the next bytes of Redis' file.
FULL_DISK = ("REGISTRY_UNAVAILABLE", "REGISTRY_REFUSES_WRITES", "DISK_FULL")


async def set_all_clocks(trial: Trial) -> None:
    """The clocks of all hosts jump: by an hour and by a day, forward and back."""
    clocks = _clocks(trial)
    await _jump(trial, clocks.names)


async def set_one_clock(trial: Trial) -> None:
    """The clock of one host jumps: of Redis, of the control plane that decides, of a worker."""
    victims = ["redis", await trial.pool.reconciler(), trial.rng.choice(sorted(trial.pool.workers))]
    trial.strike()
    for victim in trial.rng.sample(victims, 1 if trial.pace.parts else len(victims)):
        await _jump(trial, [victim])


async def _jump(trial: Trial, names: Collection[str]) -> None:
    clocks = _clocks(trial)
    jumps = JUMPS if not trial.pace.parts else trial.rng.sample(JUMPS, trial.pace.parts)
    if not trial.struck_s:
        trial.strike()
    for offset_s in (*jumps, 0):
        clocks.put(offset_s, list(names))
        await asyncio.sleep(CLOCK_READ_S)
        if "redis" in names:
            async with connected(trial.pool.store.url) as redis:
                told_s = (await redis.time())[0] - time.time()
            went = abs(told_s - offset_s) < CALL_S
            trial.check(f"the clock is {offset_s:+d} s off", went, f"{told_s:+.0f} s")
        await trial.expect_whole()
        door = trial.rng.choice(sorted(trial.pool.control_planes))
        await trial.expect_load(door, f"a load works at {offset_s:+d} s")


async def exhaust_descriptors(trial: Trial) -> None:
    """A control plane, a worker, the store: each in turn may open no more than it has open."""
    pool = trial.pool
    victims = [await pool.reconciler(), trial.rng.choice(sorted(pool.workers)), "redis"]
    trial.strike()
    for victim in trial.rng.sample(victims, trial.pace.parts or len(victims)):
        pool.processes[victim].deny_descriptors()
        await asyncio.sleep(trial.pace.away_s)
        pool.processes[victim].allow_descriptors()
        await trial.expect_whole()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def exhaust_memory(trial: Trial) -> None:
    """A worker's host has no memory left: the kernel ends the process. It comes back empty."""
    memory, pool = trial.pool.ground, trial.pool
    assert isinstance(memory, MemoryLimit), "the scenario asks for it"
    name, model = await _a_holder(trial)
    memory.limit(name, SPARE_BYTES)
    file = io.BytesIO()
    Image.new("L", HUGE).save(file, "PNG")
    trial.strike()
    with_outcome = await _outcome(trial, name, model, file.getvalue())
    process = pool.processes[name]
    try:
        await process.ended(trial.pace.away_s)
    except TimeoutError:
        trial.check("the kernel ends the process", False, f"it runs; its caller: {with_outcome}")
        process.kill()
        await process.ended(trial.pace.away_s)
    else:
        trial.check("the kernel ends the process", True, f"its caller: {with_outcome}")
    memory.lift(name)
    await asyncio.sleep(trial.pace.away_s)
    process.start()
    await trial.expect_whole()


async def expire_certificates(trial: Trial) -> None:
    """Every certificate of the pool runs out at once: connections that are open go on, new ones
    are refused, and work once the files are renewed. Nothing is started again.
    """
    ground, pool = trial.pool.ground, trial.pool
    assert isinstance(ground, Certified), "the scenario asks for it"
    ground.renew(TAKEN_S + 1.0)
    ends_s = trial.now() + TAKEN_S + 1.0
    await asyncio.sleep(TAKEN_S)  # renewed under load, too
    await asyncio.sleep(max(0.0, ends_s - trial.now()))
    trial.strike()
    for door in pool.control_planes.values():
        said = await _first_word(door.client.address, ground.ca)
        trial.check(f"{door.name} can't be connected to anew", said == Unavailable.reason, said)
    await asyncio.sleep(trial.pace.away_s)
    ground.renew(DAY_S)
    began = trial.now()
    for door in pool.control_planes.values():

        async def welcome(address: str = door.client.address) -> str:
            said = await _first_word(address, ground.ca)
            return "" if said == "OK" else said

        await trial.expect(f"{door.name} can be connected to again", welcome)
    trial.seconds["renewed_s"] = trial.now() - began
    for worker in pool.workers.values():
        await worker.renew()
    await trial.expect_whole()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


def _clocks(trial: Trial) -> Clocks:
    ground = trial.pool.ground
    assert isinstance(ground, Clocks), "the scenario asks for them"
    return ground


async def _said(trial: Trial, name: str) -> str:
    client = trial.pool.control_planes[name].client
    try:
        await client.load(SPARE, timeout_s=LOAD_S)
        await client.unload(SPARE, timeout_s=LOAD_S)
    except YolopoolError as error:
        return error.reason
    return "OK"


async def _upload(trial: Trial, name: str) -> str:
    """Registers another file, without its import, and takes it back."""
    client = trial.pool.control_planes["control-plane-0"].client
    try:
        await client.register(name, OTHER_WEIGHTS, wait=False)
        await client.delete(name)
    except YolopoolError as error:
        return error.reason
    return "OK"


async def _outcome(trial: Trial, name: str, model: str, image: bytes) -> str:
    try:
        await trial.pool.workers[name].ask(model, image, LOAD_S)
    except YolopoolError as error:
        return error.reason
    return "OK"


async def _first_word(address: str, ca: Path | None) -> str:
    """What a caller hears who connects now."""
    async with AsyncClient(address, ca=ca) as client:
        try:
            await client.workers(timeout_s=CALL_S)
        except YolopoolError as error:
            return error.reason
    return "OK"


async def _a_holder(trial: Trial) -> tuple[str, str]:
    held = [
        (name, one.version.model)
        for name, door in trial.pool.workers.items()
        for one in (await door.inventory()).worker.replicas
        if one.version.model in MODELS
    ]
    return trial.rng.choice(held)


FULL = Scenario("a full disk", fill_the_disk, ground="disk")
ALL_CLOCKS = Scenario("all clocks jump", set_all_clocks, ground="clocks")
ONE_CLOCK = Scenario("one clock jumps", set_one_clock, ground="clocks")
DESCRIPTORS = Scenario("no descriptors left", exhaust_descriptors)
MEMORY = Scenario("no memory left on a worker's host", exhaust_memory, ground="memory")
EXPIRED = Scenario("certificates run out", expire_certificates, ground="certificates")
EVERY: Sequence[Scenario] = (FULL, ALL_CLOCKS, ONE_CLOCK, DESCRIPTORS, MEMORY, EXPIRED)

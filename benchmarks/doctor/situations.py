"""What may be wrong with a pool, each with random parameters; and pools that are well."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from benchmarks.doctor.pool_model import Caller, Physics

Make = Callable[[Random], Physics]
HEALTHY = "HEALTHY"


def _capacity(physics: Physics, batch: int) -> float:
    """Images a second of one device in passes of so many."""
    return 1000 * batch / (physics.fixed_ms + physics.image_ms * batch)


def shortened(physics: Physics, requests: float) -> Physics:
    """The same in less time, so that there are at most so many requests."""
    part = min(1.0, requests / (physics.rate * physics.seconds))
    falls, neighbour = physics.clock_falls, physics.neighbour
    return replace(
        physics,
        seconds=part * physics.seconds,
        restarts=tuple(part * second for second in physics.restarts),
        clock_falls=None if falls is None else (part * falls[0], falls[1]),
        neighbour=None
        if neighbour is None
        else (part * neighbour[0], part * neighbour[1], neighbour[2]),
    )


def base(rng: Random) -> Physics:
    """A pool that is well: it is asked for a part of what it can."""
    physics = Physics(
        seconds=rng.uniform(40, 80),
        fixed_ms=rng.uniform(4, 25),
        image_ms=rng.uniform(1.5, 8),
        max_batch=rng.choice([4, 8, 16]),
        devices=rng.choice([1, 1, 2, 3]),
        models=rng.choice([1, 1, 2, 4]),
        kind=rng.choice(["cuda", "cuda", "cpu"]),
        decode_ms_a_megapixel=rng.uniform(5, 10),
        decode_threads=rng.choice([2, 4]),
        callers=[
            Caller("key:cameras", 0.7, *rng.choice([(640, 480), (1280, 720), (1280, 960)])),
            Caller("key:line", 0.3, *rng.choice([(640, 640), (1024, 768), (1920, 1080)])),
        ],
        used=(rng.uniform(0.2, 0.5), rng.uniform(0.5, 0.8)),
    )
    physics.rate = physics.devices * _capacity(physics, 1) * rng.uniform(0.1, 0.55)
    physics.plane_ms = min(rng.uniform(0.3, 1.0), 400 / physics.rate)
    return physics


def over_capacity(rng: Random) -> Physics:
    # Passes of twice the size would be of little use.
    physics = replace(base(rng), max_batch=rng.choice([4, 8, 16]))
    image_ms = physics.fixed_ms * rng.uniform(3, 6) / physics.max_batch
    physics = replace(physics, image_ms=image_ms, models=1)
    rate = physics.devices * _capacity(physics, physics.max_batch) * rng.uniform(1.05, 1.6)
    return replace(physics, rate=rate, decode_threads=16, decode_ms_a_megapixel=2.0)


def small_batches(rng: Random) -> Physics:
    physics = replace(base(rng), fixed_ms=rng.uniform(15, 40), image_ms=rng.uniform(0.8, 3))
    physics = replace(physics, max_batch=rng.choice([1, 2]), models=1, decode_threads=16)
    rate = physics.devices * _capacity(physics, physics.max_batch) * rng.uniform(1.02, 1.3)
    return replace(physics, rate=rate, decode_ms_a_megapixel=2.0)


def large_batches(rng: Random) -> Physics:
    physics = replace(base(rng), fixed_ms=rng.uniform(2, 6), image_ms=rng.uniform(12, 25))
    physics = replace(physics, max_batch=rng.choice([32, 64]), models=1, devices=1)
    deadline_ms = (physics.fixed_ms + physics.image_ms * 16) * rng.uniform(0.6, 1.0)
    rate = _capacity(physics, 16) * rng.uniform(0.55, 0.75)
    return replace(physics, deadline_ms=deadline_ms, rate=rate, bursts=1.5, decode_threads=16)


def decode_bound(rng: Random) -> Physics:
    physics = replace(base(rng), decode_threads=2, fixed_ms=3.0, image_ms=1.5, kind="cuda")
    callers = [Caller("key:cameras", 1.0, *rng.choice([(1280, 960), (1280, 1024), (1440, 1080)]))]
    cost = rng.uniform(15, 40)
    megapixels = callers[0].width * callers[0].height / 1e6
    rate = physics.devices * 2000 / (megapixels * (cost + 0.4)) * rng.uniform(0.8, 0.97)
    return replace(physics, callers=callers, decode_ms_a_megapixel=cost, rate=rate)


def memory_pressure(rng: Random) -> Physics:
    return replace(
        base(rng),
        used=(rng.uniform(0.25, 0.6), rng.uniform(0.97, 0.999)),
        pressure=rng.uniform(3, 9),
    )


def reload_thrash(rng: Random) -> Physics:
    models = rng.randint(5, 12)
    physics = replace(base(rng), models=models, devices=1, load_ms=rng.uniform(200, 1500))
    rate = min(physics.rate, rng.uniform(2, 8))
    return replace(physics, resident=rng.randint(2, models - 2), rate=rate)


def cold_first(rng: Random) -> Physics:
    physics = base(rng)
    restarts = tuple(sorted(rng.uniform(0, physics.seconds) for _ in range(rng.randint(2, 5))))
    rate = min(physics.rate, rng.uniform(4, 12))
    return replace(physics, cold_ms=rng.uniform(400, 2500), restarts=restarts, rate=rate)


def slow_device(rng: Random) -> Physics:
    physics = replace(base(rng), devices=rng.randint(2, 4))
    slowness = [1.0] * physics.devices
    slowness[rng.randrange(physics.devices)] = rng.uniform(1.8, 4)
    rate = (physics.devices - 1) * _capacity(physics, 1) * rng.uniform(0.3, 0.55)
    return replace(physics, slowness=tuple(slowness), rate=rate)


def transfer_bound(rng: Random) -> Physics:
    physics = replace(base(rng), kind="cuda", fixed_ms=rng.uniform(2, 6), image_ms=1.5)
    transfer_ms = rng.uniform(1.2, 4) * (physics.fixed_ms + physics.image_ms)
    bytes_a_ms = 3 * 640**2 / transfer_ms
    rate = physics.devices * 1000 / (transfer_ms + physics.fixed_ms) * rng.uniform(0.3, 0.6)
    return replace(physics, bytes_a_ms=bytes_a_ms, rate=rate)


def throttled(rng: Random) -> Physics:
    physics = replace(base(rng), kind="cuda")
    falls = (rng.uniform(0.15, 0.6) * physics.seconds, rng.uniform(0.3, 0.65))
    return replace(physics, clock_falls=falls)


def noisy_host(rng: Random) -> Physics:
    physics = replace(base(rng), kind="cpu")
    begin = rng.uniform(0.1, 0.4) * physics.seconds
    neighbour = (begin, begin + rng.uniform(0.3, 0.5) * physics.seconds, rng.uniform(2, 6))
    return replace(physics, neighbour=neighbour, neighbour_costs=rng.uniform(0.3, 0.7))


def oversized(rng: Random) -> Physics:
    physics = replace(base(rng), fixed_ms=rng.uniform(4, 10), decode_threads=4)
    large = Caller("key:scanner", rng.uniform(0.15, 0.5), *rng.choice([(6000, 4000), (8192, 5464)]))
    rate = min(physics.rate, rng.uniform(3, 8))
    return replace(physics, callers=[*physics.callers, large], rate=rate)


def client_retries(rng: Random) -> Physics:
    physics = replace(base(rng), models=1, devices=1, max_batch=4, decode_threads=16)
    pass_ms = physics.fixed_ms + physics.image_ms * 4
    impatient = Caller(
        "key:dashboard",
        rng.uniform(0.3, 0.6),
        retries=rng.randint(3, 8),
        patience_ms=pass_ms * rng.uniform(0.8, 1.3),
    )
    rate = _capacity(physics, 4) * rng.uniform(0.6, 0.8)
    return replace(physics, callers=[*physics.callers, impatient], rate=rate)


def plane_bound(rng: Random) -> Physics:
    physics = replace(base(rng), kind="cuda", fixed_ms=2.0, image_ms=0.6, decode_threads=8)
    plane_ms = rng.uniform(2, 4)
    rate = 1000 / plane_ms * rng.uniform(0.93, 1.02)
    callers = [Caller("key:cameras", 1.0, 640, 480)]
    return replace(
        physics, callers=callers, plane_ms=plane_ms, rate=rate, decode_ms_a_megapixel=5.0
    )


# By the code of the finding that names it.
SITUATIONS: Mapping[str, Make] = {
    "OVER_CAPACITY": over_capacity,
    "BATCHES_TOO_SMALL": small_batches,
    "BATCHES_TOO_LARGE": large_batches,
    "DECODE_BOUND": decode_bound,
    "MEMORY_PRESSURE": memory_pressure,
    "RELOAD_THRASH": reload_thrash,
    "COLD_FIRST_REQUESTS": cold_first,
    "SLOW_DEVICE": slow_device,
    "TRANSFER_BOUND": transfer_bound,
    "THROTTLED": throttled,
    "NOISY_HOST": noisy_host,
    "OVERSIZED_IMAGES": oversized,
    "CLIENT_RETRIES": client_retries,
    "CONTROL_PLANE_BUSY": plane_bound,
    HEALTHY: base,
}

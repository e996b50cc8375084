"""A family of five sizes under rising load: which size answers, and is a deadline missed that a
smaller one would have met?

    python -m benchmarks.family --rates 2,5,10,20,40 --seconds 10 --deadline 1

A pool with a slow simulated device, whose passes take longer for larger models. The same arrivals
go to the family and to each size alone, one after the other: a request that the family misses and
the smallest alone answers in time is one too many. mAP is given, not measured: a simulated device
finds nothing.
"""

import argparse
import asyncio
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import dataset, fleet, hardware, results, weights
from benchmarks.harness.loadgen import Load, Outcome, open_loop, poisson_arrivals
from benchmarks.harness.pool import Pool, PoolFlags
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills, stood_s, undisturbed
from benchmarks.harness.statistics import quantile
from yolopool.client.async_client import AsyncClient

SIZES = "nsmlx"
# mAP50-95 of YOLOv8 on COCO val2017 at 640 pixels, as the model library publishes it.
GIVEN_MAP = {"n": 37.3, "s": 44.9, "m": 50.2, "l": 52.9, "x": 53.9}
FAMILY = "family:any"
IMAGES = dataset.encoded()
# A size that keeps deadlines may miss as many.
FEW = 0.02
WARM_UP = 12  # requests of each size, by which the device's times become known


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.family", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--device", default="sim:1", help="of the pool")
    parser.add_argument("--slowness", type=float, default=10.0, help="of the simulated device, x")
    parser.add_argument("--rates", default="2,5,10,20,40", help="requests/s, one after another")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate")
    parser.add_argument("--deadline", type=float, default=1.0, help="of each request, s")
    parser.add_argument("--image-size", type=int, default=640, help="that the models see, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--pool-log", type=Path, help="keep the log of the pool's processes here")
    return parser


@dataclass(frozen=True, slots=True)
class Rising:
    """Arrivals at one rate after another, `seconds` of each."""

    rates: tuple[float, ...]
    seconds: float
    seed: int

    @property
    def arrivals(self) -> tuple[float, ...]:
        return tuple(
            number * self.seconds + moment
            for number, rate in enumerate(self.rates)
            for moment in poisson_arrivals(rate, self.seconds, self.seed + number)
        )

    def stage(self, outcome: Outcome) -> int:
        """Which rate a request belongs to, counted from 0."""
        return min(int(outcome.intended_s / self.seconds), len(self.rates) - 1)


def model_of(size: str) -> str:
    return f"family-{size}"


async def prepare(client: AsyncClient, folder: Path, options: argparse.Namespace) -> None:
    """Registers the sizes, makes the family, and lets each run until its times are known."""
    names = [model_of(size) for size in SIZES]
    for size, name in zip(SIZES, names, strict=True):
        path = await asyncio.to_thread(
            weights.make, f"yolov8{size}.yaml", options.seed, folder / f"{size}.pt"
        )
        await fleet.register(client, name, path, options.image_size)
    await client.set_family(FAMILY, names)
    for name in names:
        await client.load(name)
        for number in range(WARM_UP):
            await client.detect(IMAGES[number % len(IMAGES)], model=name, timeout_s=60.0)


async def ask(
    client: AsyncClient, model: str, deadline_s: float, number: int
) -> Mapping[str, float]:
    """The place of the size that answered is told as a stage, as the generator keeps no words."""
    image = IMAGES[number % len(IMAGES)]
    found = await client.detect(image, model=model, timeout_s=deadline_s)
    return {"size": float(SIZES.index(found.model.partition("@")[0][-1]))}


async def loads(client: AsyncClient, rising: Rising, deadline_s: float) -> dict[str, Load]:
    """The same arrivals for the family, and for each size alone."""
    found: dict[str, Load] = {}
    for model in (FAMILY, *map(model_of, SIZES)):
        call = partial(ask, client, model, deadline_s)
        length_s = len(rising.rates) * rising.seconds
        found[model] = await open_loop(call, rising.arrivals, 0.0, length_s)
        await asyncio.sleep(2.0)  # what it left in the queue
    return found


def in_time(outcome: Outcome, deadline_s: float) -> bool:
    # A client's own deadline counts from when it sends, and ends a moment after it is over.
    return not outcome.reason and outcome.finished_s - outcome.started_s <= deadline_s


def size_of(outcome: Outcome) -> str:
    return SIZES[int(outcome.stages_ms["size"])]


def mean_map(outcomes: Sequence[Outcome], deadline_s: float) -> float:
    """A request that is not answered in time counts as nothing found."""
    found = [GIVEN_MAP[size_of(one)] for one in outcomes if in_time(one, deadline_s)]
    return sum(found) / len(outcomes) if outcomes else 0.0


def share_missed(outcomes: Sequence[Outcome], deadline_s: float) -> float:
    return sum(not in_time(one, deadline_s) for one in outcomes) / max(len(outcomes), 1)


def stage_rows(model: str, load: Load, rising: Rising, deadline_s: float) -> list[Row]:
    """A row a rate."""
    rows: list[Row] = []
    for stage, rate in enumerate(rising.rates):
        asked = [one for one in load.measured() if rising.stage(one) == stage]
        met = [one for one in asked if in_time(one, deadline_s)]
        sizes = Counter(size_of(one) for one in asked if not one.reason)
        times_ms = [(one.finished_s - one.started_s) * 1e3 for one in asked if not one.reason]
        rows.append(
            {
                "model": model,
                "rate_per_s": rate,
                "asked": len(asked),
                "missed": len(asked) - len(met),
                "p50_ms": quantile(times_ms, 0.5) if times_ms else None,
                "p99_ms": quantile(times_ms, 0.99) if times_ms else None,
                **{f"answered_{size}": sizes[size] for size in SIZES},
                "map_answered": _mean([GIVEN_MAP[size_of(one)] for one in asked if not one.reason]),
                "map_in_time": mean_map(asked, deadline_s),
            }
        )
    return rows


def total_row(model: str, load: Load, stood: Standstills, deadline_s: float) -> Row:
    asked = load.measured()
    return {
        "model": model,
        "asked": len(asked),
        "missed": sum(not in_time(one, deadline_s) for one in asked),
        "errors": str(load.errors) if load.errors else "",
        "map_in_time": mean_map(asked, deadline_s),
        "stood_still": stood_s(load, stood.spans) / load.window.length_s
        if stood.is_known
        else None,
        "generator_cores": load.generator_cores,
    }


def too_many(found: Mapping[str, Load], stood: Standstills, deadline_s: float) -> list[Outcome]:
    """What the family missed while the machine ran, and a smaller size alone answered in time."""
    smallest = {one.intended_s: one for one in found[model_of(SIZES[0])].measured()}
    return [
        one
        for one in undisturbed(found[FAMILY], stood.spans)
        if not in_time(one, deadline_s) and in_time(smallest[one.intended_s], deadline_s)
    ]


def verdicts(
    found: Mapping[str, Load], rising: Rising, stood: Standstills, deadline_s: float
) -> list[Check]:
    missed = too_many(found, stood, deadline_s)
    measured = undisturbed(found[FAMILY], stood.spans)
    rows = stage_rows(FAMILY, found[FAMILY], rising, deadline_s)
    means = [float(row["map_answered"] or 0) for row in rows]
    falls = all(later <= sooner + 0.5 for sooner, later in itertools.pairwise(means))
    family = mean_map(found[FAMILY].measured(), deadline_s)
    alone = {size: found[model_of(size)].measured() for size in SIZES}
    means_alone = {size: mean_map(asked, deadline_s) for size, asked in alone.items()}
    keeping = [size for size, asked in alone.items() if share_missed(asked, deadline_s) <= FEW]
    busiest = max(load.generator_cores for load in found.values())
    return [
        Check(
            "no deadline was missed that a smaller size met",
            not missed,
            f"{len(missed)} of {len(measured)} while the machine ran",
        ),
        Check(
            "the size falls as the load rises",
            falls and means[-1] < means[0],
            "mAP of what answered: " + ", ".join(f"{mean:.1f}" for mean in means),
        ),
        Check(
            f"mean mAP is above that of each size that alone misses at most {FEW:.0%}",
            all(family > means_alone[size] for size in keeping),
            f"{family:.1f}; alone, where missing these: "
            + ", ".join(
                f"{size} {means_alone[size]:.1f} ({share_missed(alone[size], deadline_s):.0%})"
                for size in SIZES
            ),
        ),
        Check("the generator was no limit", busiest < 0.9, f"{busiest:.2f} cores at most"),
    ]


async def run(options: argparse.Namespace) -> Result:
    """Starts the pool, fills it, loads it, stops it."""
    machine, started_at = hardware.describe(), results.now()
    rising = Rising(tuple(map(float, options.rates.split(","))), options.seconds, options.seed)
    pool_flags = PoolFlags(options.device, demo=False)
    # So that the device is the limit, and not the cores that decode images.
    os.environ["YOLOPOOL_WORKER_SIM_SLOWNESS"] = str(options.slowness)
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        async with (
            Pool(pool_flags, options.pool_log) as pool,
            AsyncClient(pool.address) as client,
            Standstills() as stood,
        ):
            await prepare(client, Path(folder), options)
            found = await loads(client, rising, options.deadline)
    deadline_s = options.deadline
    return Result(
        scenario="family",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "the family, by rate": tuple(stage_rows(FAMILY, found[FAMILY], rising, deadline_s)),
            "the family and each size alone": tuple(
                total_row(model, load, stood, deadline_s) for model, load in found.items()
            ),
            "each size alone, by rate": tuple(
                row
                for model, load in found.items()
                if model != FAMILY
                for row in stage_rows(model, load, rising, deadline_s)
            ),
            "mAP50-95 as given": tuple({"size": one, "map": GIVEN_MAP[one]} for one in SIZES),
        },
        checks=tuple(verdicts(found, rising, stood, deadline_s)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

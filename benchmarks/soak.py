"""Does anything grow, when all goes on for long and something always breaks?

    python -m benchmarks.soak --minutes 42

Two control planes, three workers under supervisors, an importer and a Redis as real processes on
simulated devices. Models are loaded, switched and evicted, a seed decides which part is broken
next, and callers come by gRPC, HTTP and streams. Every ten seconds memory, descriptors, threads,
the store and the metrics are read from outside; the verdict on a curve is its slope over the
second half (`soaking/slopes.py`). Nothing needs more rights than a user has.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.harness import dataset, hardware, results
from benchmarks.harness.results import Check, Result, Row
from benchmarks.soaking import samples
from benchmarks.soaking.slopes import Bound, Verdict, judge
from benchmarks.soaking.upsets import MORTAL_CONTROL_PLANE, MORTAL_WORKER, Troubled, trouble
from benchmarks.soaking.visitors import HttpDoor, Visitors
from tests.chaos import invariants, setting
from tests.chaos.account import Account, account
from tests.chaos.pool import Pool, Shape, settled
from tests.chaos.traffic import Door, Rate, Traffic
from yolopool.cli.svg_chart import lines_chart, stacked

SAMPLE_S = 10.0
# Models that come and go beside those that stay, which are pinned. There is room for some of them
# on a device, and for less in the tier beneath: they are switched, and evicted, all the time.
MANY = 12
WORKER_FLAGS = ("--memory-budget=416MiB", "--pack-cache=40MiB")
END_S = 30.0
# What may be added in an hour: a share of the level, or at least so many units.
BOUNDS: Mapping[str, Bound] = {
    "store memory MiB": Bound(0.05, 0.5),
    "memory MiB": Bound(0.10, 10.0),
    "descriptors": Bound(0.05, 6.0),
    "threads": Bound(0.05, 4.0),
    "store keys": Bound(0.05, 5.0),
    "metric series": Bound(0.05, 20.0),
    "registry fields": Bound(0.0, 1.0),
}
# Until each curve has some points in its second half there is no verdict.
LEAST_SAMPLES = 12


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--minutes", type=float, default=5.0, help="with callers and faults")
    parser.add_argument("--every", type=float, default=20.0, help="most between two faults, s")
    parser.add_argument("--sample", type=float, default=SAMPLE_S, help="between two looks, s")
    parser.add_argument("--callers", type=int, default=3, help="requests in flight, of each door")
    parser.add_argument("--pause", type=float, default=0.15, help="of a caller after each, s")
    parser.add_argument("--seed", type=int, default=0, help="of faults, pictures and moments")
    return parser


@dataclass(slots=True)
class Curves:
    """Figures by name over time; a figure that was away at a look keeps what it had before."""

    times_s: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at_s: float, found: Mapping[str, float]) -> None:
        self.times_s.append(at_s)
        for name, value in found.items():
            curve = self.values.setdefault(name, [])
            curve += [value] * (len(self.times_s) - 1 - len(curve))
            curve.append(value)
        for curve in self.values.values():
            curve += curve[-1:] * (len(self.times_s) - len(curve))

    def verdicts(self) -> dict[str, Verdict]:
        """Of every curve that has a bound; those of who is killed now and then start again, and
        only show that they are no higher than the others'.
        """
        return {
            name: judge(self.times_s, curve, bound)
            for name, curve in sorted(self.values.items())
            if (bound := _bound_of(name)) is not None and not _is_mortal(name)
        }


def _bound_of(name: str) -> Bound | None:
    return next((bound for ending, bound in BOUNDS.items() if name.endswith(ending)), None)


def _is_mortal(name: str) -> bool:
    return name.startswith((f"{MORTAL_CONTROL_PLANE} ", f"{MORTAL_WORKER} ", "importer "))


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came out of it."""

    curves: Curves
    accounts: Mapping[str, Account]
    outcomes: Mapping[tuple[str, str], int]
    troubled: Troubled
    events: Mapping[str, int]
    complaint: str
    words: str


async def soak(options: argparse.Namespace) -> Soaked:
    """The whole run on a pool of its own."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        shape = Shape(supervised=True, worker_flags=WORKER_FLAGS)
        async with Pool(shape, Path(folder)) as pool:
            await setting.prepare(pool)
            return await _soak(pool, options)


async def _soak(pool: Pool, options: argparse.Namespace) -> Soaked:
    rng = Random(options.seed)
    client = pool.control_planes["control-plane-0"].client
    many = [f"soak/m{number}" for number in range(MANY)]
    for name in many:
        await client.register(name, dataset.DEMO_WEIGHTS, image_size=setting.IMAGE_SIZE)
    for name in setting.MODELS:
        await client.load(name, replicas=setting.REPLICAS, pin=True)
    before = await invariants.listing(pool, "control-plane-0")
    pictures = await setting.pictures(pool)
    doors = tuple(pool.control_planes.values())
    curves = Curves()
    troubled = Troubled(pool, many, rng)
    rate = Rate(options.callers, options.pause)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        https = [HttpDoor(name, http) for name, http in pool.http.items()]
        for door in https:
            stack.push_async_callback(door.close)
        routes: dict[str, Sequence[tuple[Door, str]]] = {
            "gRPC": [(door, model) for model in setting.MODELS for door in doors],
            "HTTP": [(door, model) for model in setting.MODELS for door in https],
        }
        traffics = {
            who: await stack.enter_async_context(Traffic(places, pictures, rate, rng))
            for who, places in routes.items()
        }
        visitors = Visitors(doors, setting.MODELS, many, pictures, rng)
        await stack.enter_async_context(visitors)
        faults = asyncio.create_task(trouble(troubled, options.every))
        ends = began + options.minutes * 60
        while (now := time.monotonic()) < ends:
            curves.add(now - began, await samples.take(pool))
            print(_line(now - began, curves, troubled.done), file=sys.stderr, flush=True)
            if faults.done():
                break
            await asyncio.sleep(max(0.0, options.sample - (time.monotonic() - now)))
        troubled.stopping.set()
        words = await _ended(faults)
        end_s = traffics["gRPC"].now()
    accounts = {
        who: account(traffic.requests(), 0.0, end_s, 1.0) for who, traffic in traffics.items()
    }
    for name in many:
        await client.unload(name)
    complaint = await settled(lambda: _differs(pool, before), END_S)
    events = await _events(pool)
    return Soaked(curves, accounts, visitors.outcomes, troubled, events, complaint, words)


async def _ended(faults: "asyncio.Task[None]") -> str:
    """Waits until the last fault is mended; what broke, empty: nothing."""
    (ended,) = await asyncio.gather(faults, return_exceptions=True)
    return "" if ended is None else f"{type(ended).__name__}: {ended}"


async def _events(pool: Pool) -> dict[str, int]:
    """What happened since the store was emptied last, by kind and reason."""
    client = pool.control_planes["control-plane-0"].client
    counts: Counter[str] = Counter()
    async for event in client.events(last=0):
        counts[f"{event.kind} {event.reason}".strip()] += 1
    return dict(counts.most_common())


async def _differs(pool: Pool, before: invariants.Listing) -> str:
    lacks = await invariants.store_lacks(pool, before)
    return lacks or await invariants.registry_differs(pool, before)


def _line(at_s: float, curves: Curves, done: Mapping[str, int]) -> str:
    shown = ("control-plane-0 memory MiB", "worker-0 memory MiB", "store memory MiB", "store keys")
    figures = {name: curves.values.get(name, [0.0])[-1] for name in shown}
    told = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    return f"{at_s:7.0f} s  {told}, {sum(done.values())} upsets"


def _rows(soaked: Soaked) -> dict[str, tuple[Row, ...]]:
    callers: list[Row] = []
    for who, one in soaked.accounts.items():
        failed = ", ".join(f"{count} {reason}" for reason, count in one.failed.items())
        callers.append(
            {"callers": who, "sent": one.sent, "ok": one.ok, "failed": failed,
             "asked twice": one.retried_outside, "wrong": one.wrong, "worst s": one.worst_s}
        )  # fmt: skip
    outcomes: list[Row] = [
        {"callers": who, "outcome": what, "count": count}
        for (who, what), count in sorted(soaked.outcomes.items())
    ]
    verdicts: list[Row] = []
    if len(soaked.curves.times_s) >= LEAST_SAMPLES:
        verdicts = [
            {"figure": name, "level": one.level, "growth an hour": one.growth_per_h,
             "allowed": one.allowed_per_h, "flat": one.is_flat}
            for name, one in soaked.curves.verdicts().items()
        ]  # fmt: skip
    every = max(1, len(soaked.curves.times_s) // 40)
    looks: list[Row] = [
        {"at s": at, **{name: curve[index] for name, curve in soaked.curves.values.items()}}
        for index, at in enumerate(soaked.curves.times_s)
        if index % every == 0
    ]
    tables: dict[str, tuple[Row, ...]] = {
        "callers of models that stay": tuple(callers),
        "other callers": tuple(outcomes),
        "upsets": tuple(
            {"upset": name, "times": n} for name, n in sorted(soaked.troubled.done.items())
        ),
        "work that was refused": tuple({"why": why} for why in soaked.troubled.refused),
        "events since Redis was emptied last": tuple(
            {"event": name, "times": count} for name, count in soaked.events.items()
        ),
        "slopes of the second half": tuple(verdicts),
        "samples": tuple(looks),
    }
    return {title: rows for title, rows in tables.items() if rows}


def _checks(soaked: Soaked) -> tuple[Check, ...]:
    enough = len(soaked.curves.times_s) >= LEAST_SAMPLES
    verdicts = soaked.curves.verdicts() if enough else {}
    grown = [
        f"{name} {one.growth_per_h:+.1f} an hour of {one.level:.1f}"
        for name, one in verdicts.items()
        if not one.is_flat
    ]
    failed = {who: one.failed for who, one in soaked.accounts.items() if one.failed}
    lost = sum(one.lost for one in soaked.accounts.values())
    wrong = sum(one.wrong for one in soaked.accounts.values())
    wrong += sum(count for (_, what), count in soaked.outcomes.items() if what == "WRONG")
    frames = {w: n for (who, w), n in soaked.outcomes.items() if who == "stream" and w != "OK"}
    told = ", ".join(grown) or f"{len(verdicts)} curves"
    return (
        Check("there are enough samples for a verdict", enough, f"{len(soaked.curves.times_s)}"),
        Check("every curve is flat", not grown, told),
        Check("models that stay answer every Detect", not failed, str(failed or "none failed")),
        Check("frames of streams are answered", not frames, str(frames or "none failed")),
        Check("every request has an outcome", not lost, f"{lost} lost"),
        Check("no wrong boxes", not wrong, f"{wrong} wrong"),
        Check(
            "the pool heals after every fault", not soaked.words, soaked.words[:2000] or "it does"
        ),
        Check("the registry is as before", not soaked.complaint, soaked.complaint or "none lost"),
    )


def picture(curves: Curves) -> str:
    """All curves, a chart for each kind of figure."""
    minutes = (curves.times_s[-1] / max(1, len(curves.times_s) - 1)) / 60
    charts = []
    for ending in ("memory MiB", "descriptors", "threads", "metric series"):
        shown = {
            name.removesuffix(f" {ending}"): curve
            for name, curve in sorted(curves.values.items())
            if name.endswith(ending) and _is_drawn(name)
        }
        charts.append(lines_chart(shown, f"Soak: {ending}", "minutes", ending, minutes))
    for name in ("store memory MiB", "store keys", "registry fields"):
        charts.append(
            lines_chart({"": curves.values[name]}, f"Soak: {name}", "minutes", name, minutes)
        )
    return stacked(charts)


def _is_drawn(name: str) -> bool:
    """As many as there are colours: who is killed and who is not, and the store."""
    known = (
        "control-plane-0 ",
        "control-plane-1 ",
        "worker-0 ",
        "worker-2 ",
        "redis ",
        "importer ",
    )
    return name.startswith(known) and " own " not in name


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; answers the exit status."""
    options = flags().parse_args(arguments)
    machine, started_at = hardware.describe(), results.now()
    soaked = asyncio.run(soak(options))
    options.results.mkdir(parents=True, exist_ok=True)
    if len(soaked.curves.times_s) > 1:
        path = options.results / f"soak-{started_at[:10]}.svg"
        path.write_text(picture(soaked.curves))
    result = Result(
        "soak",
        started_at,
        results.settings_of(options),
        machine,
        _rows(soaked),
        _checks(soaked),
    )
    return results.publish(result, options.results)


if __name__ == "__main__":
    sys.exit(main())

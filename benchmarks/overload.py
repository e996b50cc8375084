"""More than a worker can do: what interactive requests wait beside a flood, and what a flood costs.

    python -m benchmarks.overload --devices cpu,sim:1 --rounds 5 --seconds 20 --floods 3

One worker, asked directly. A simulated device runs a large model on large images, so that it is the
limit and not the cores of this machine, which the generator shares. Latencies are judged without
the requests that were under way while the machine itself stood still, and told with them too.
"""

import argparse
import asyncio
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.loadgen import (
    Load,
    Outcome,
    closed_loop,
    constant_arrivals,
    open_loop,
    poisson_arrivals,
)
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills, stood_s, undisturbed
from benchmarks.harness.statistics import quantile, spread
from benchmarks.harness.worker import Worker
from yolopool.errors import DeadlineUnmeetable
from yolopool.v1 import types_pb2

MODEL = "model"
# What is demanded.
OF_LONGEST, OF_CAPACITY, OF_ADMITTED, RECOVERY_S, OF_BEFORE = 1.2, 0.9, 0.95, 5.0, 2.0
REFUSED_MS = {"cpu": 25.0, "sim": 10.0}
REFUSALS = frozenset({"QUEUE_FULL", "DEADLINE_UNMEETABLE"})


class GaveWay(DeadlineUnmeetable):
    """One that was let in, and given up for others: no refusal on arrival."""

    reason = "GAVE_WAY"


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.overload", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--devices", default="cpu,sim:1", help="one after the other")
    parser.add_argument("--architecture", default="yolov8n.yaml", help="of the model on a CPU")
    parser.add_argument("--simulated", default="yolov8x.yaml", help="that on a simulated device")
    parser.add_argument("--image-size", type=int, default=640, help="longest side, pixels")
    parser.add_argument("--simulated-size", type=int, default=960, help="on a simulated device")
    parser.add_argument("--rounds", type=int, default=5, help="of interactive alone and beside")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each such run")
    parser.add_argument("--share", type=float, default=0.2, help="interactive, of the capacity")
    parser.add_argument("--bulk-clients", type=int, default=32, help="that keep bulk waiting")
    parser.add_argument("--capacity-seconds", type=float, default=20.0, help="of measuring it")
    parser.add_argument("--capacity-clients", type=int, default=32, help="that measure it")
    parser.add_argument("--floods", type=int, default=3, help="one after the other")
    parser.add_argument("--flood-seconds", type=float, default=60.0, help="of each flood")
    parser.add_argument("--factor", type=float, default=4.0, help="of a flood, x the capacity")
    parser.add_argument("--deadline", type=float, default=5.0, help="of its requests, s")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    return parser


@dataclass(slots=True)
class Subject:
    """A worker on one device, and what was measured of it."""

    device: str
    worker: Worker
    stood: Standstills
    options: argparse.Namespace
    capacity: float = 0.0
    alone: list[Load] = field(default_factory=list)
    beside: list[Load] = field(default_factory=list)
    bulk: list[Load] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.device.partition(":")[0]

    async def ask(
        self, priority: types_pb2.Priority.ValueType, timeout_s: float, number: int
    ) -> Mapping[str, float]:
        image = IMAGES[number % len(IMAGES)]
        try:
            timing = (await self.worker.infer(MODEL, image, priority, timeout_s)).result.timing
        except DeadlineUnmeetable as error:
            if "waited_s" in error.details:
                raise GaveWay(error.message) from None
            raise
        return {"pass_ms": timing.inference_ms + timing.postprocess_ms}


def _jpeg(image: bytes) -> bytes:
    scratch = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(scratch, "JPEG", quality=90)
    return scratch.getvalue()


# As cameras send them.
IMAGES = tuple(map(_jpeg, dataset.encoded()))
INTERACTIVE, NORMAL, BULK = (
    types_pb2.PRIORITY_INTERACTIVE,
    types_pb2.PRIORITY_NORMAL,
    types_pb2.PRIORITY_BULK,
)


async def capacity_of(subject: Subject) -> float:
    """Answers a second to as many callers as keep the device busy."""
    options = subject.options
    call = partial(subject.ask, NORMAL, 60.0)
    load = await closed_loop(call, options.capacity_clients, 3.0, options.capacity_seconds)
    return load.throughput


# --- interactive beside bulk --------------------------------------------------------------------


async def priorities(subject: Subject) -> tuple[list[Row], list[Check]]:
    """Interactive requests alone and beside bulk, in turns."""
    options = subject.options
    for number in range(2 * options.rounds):
        # alone, beside, beside, alone, ...: a drift of the machine is in both.
        seed = options.seed + number
        if number % 4 in (1, 2):
            await beside(subject, seed)
        else:
            subject.alone.append(await interactive(subject, seed))
    bulk = [one for load in subject.bulk for one in undisturbed(load, subject.stood.spans)]
    longest_ms = max(one.stages_ms["pass_ms"] for one in bulk if not one.reason)
    rows = [
        _latencies(subject, "interactive alone", subject.alone),
        _latencies(subject, "interactive beside bulk", subject.beside),
        {**_latencies(subject, "bulk", subject.bulk), "longest_pass_ms": longest_ms},
    ]
    alone_ms, beside_ms = (float(row["while_it_ran_p99_ms"] or 0) for row in rows[:2])
    all_alone_ms, all_beside_ms = (float(row["p99_ms"] or 0) for row in rows[:2])
    limit_ms = alone_ms + OF_LONGEST * longest_ms
    failed = sum(sum(load.errors.values()) for load in (*subject.alone, *subject.beside))
    return rows, [
        Check(f"{subject.device}: every interactive request was answered", not failed, str(failed)),
        Check(
            f"{subject.device}: interactive p99 beside bulk",
            beside_ms <= limit_ms,
            f"{beside_ms:.1f} ms while the machine ran, alone {alone_ms:.1f} ms + {OF_LONGEST} x "
            f"{longest_ms:.1f} ms allow {limit_ms:.1f} ms; of all {all_beside_ms:.1f} ms, alone "
            f"{all_alone_ms:.1f}",
        ),
    ]


async def interactive(subject: Subject, seed: int) -> Load:
    options = subject.options
    rate = max(1.0, options.share * subject.capacity)
    arrivals = poisson_arrivals(rate, options.seconds + 2.0, seed)
    call = partial(subject.ask, INTERACTIVE, 60.0)
    return await open_loop(call, arrivals, 2.0, options.seconds)


async def beside(subject: Subject, seed: int) -> None:
    options = subject.options
    call = partial(subject.ask, BULK, 60.0)
    # Longer than what is measured beside it, at both ends.
    flood = asyncio.create_task(closed_loop(call, options.bulk_clients, 0.0, options.seconds + 4.0))
    await asyncio.sleep(1.0)
    subject.beside.append(await interactive(subject, seed))
    subject.bulk.append(await flood)


def _latencies(subject: Subject, name: str, loads: Sequence[Load]) -> Row:
    spans = subject.stood.spans
    measured = [one for load in loads for one in load.measured()]
    times_ms = [one.latency_s * 1e3 for one in measured if not one.reason]
    running = [one for load in loads for one in undisturbed(load, spans)]
    running_ms = [one.latency_s * 1e3 for one in running if not one.reason]
    return {
        "device": subject.device,
        "requests": name,
        "runs": len(loads),
        "count": len(measured),
        "refused": sum(bool(one.reason) for one in measured),
        "a_second": sum(load.throughput for load in loads) / len(loads),
        "p50_ms": quantile(times_ms, 0.5),
        "p99_ms": quantile(times_ms, 0.99),
        **_while_it_ran(subject.stood, loads, running_ms),
        "generator_cores": max(load.generator_cores for load in loads),
    }


def _while_it_ran(stood: Standstills, loads: Sequence[Load], running_ms: list[float]) -> Row:
    """The share of the time in which the machine stood still, and what was told apart by it."""
    windows_s = sum(load.window.length_s for load in loads)
    share = sum(stood_s(load, stood.spans) for load in loads) / windows_s
    return {
        "stood_still": share if stood.is_known else None,
        "while_it_ran": len(running_ms),
        "while_it_ran_p99_ms": quantile(running_ms, 0.99),
    }


# --- more than it can do ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flood:
    """One flood in an open loop; answers a second of `capacity` are the mean of what was measured
    before it and after it, since a machine drifts.
    """

    load: Load
    before: Load
    capacity: float
    recovery_s: float

    @property
    def share(self) -> float:
        return self.load.throughput / self.capacity

    @property
    def answered(self) -> int:
        return sum(not one.reason for one in self.load.measured())

    @property
    def lost(self) -> Counter[str]:
        """Those that were let in and not answered, by reason."""
        measured = self.load.measured()
        return Counter(one.reason for one in measured if one.reason not in ("", *REFUSALS))

    @property
    def refused_ms(self) -> list[float]:
        return _refused_ms(self.load.measured())

    def undisturbed_ms(self, stood: Standstills) -> list[float]:
        """Of refusals while the machine ran."""
        return _refused_ms(undisturbed(self.load, stood.spans))


def _refused_ms(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.latency_s * 1e3 for one in outcomes if one.reason in REFUSALS]


async def floods(subject: Subject) -> tuple[list[Row], list[Check]]:
    """Some of them, with one client before and after each, and the capacity between them."""
    options = subject.options
    runs: list[Flood] = []
    capacity = await capacity_of(subject)
    for _ in range(options.floods):
        load, before, recovery_s = await flood(subject, options.factor * capacity)
        capacity, was = await capacity_of(subject), capacity
        runs.append(Flood(load, before, (was + capacity) / 2, recovery_s))
    share = spread([one.share for one in runs])
    refused_ms = [ms for one in runs for ms in one.refused_ms] or [0.0]
    running_ms = [ms for one in runs for ms in one.undisturbed_ms(subject.stood)] or [0.0]
    p99_ms, limit_ms = quantile(running_ms, 0.99), REFUSED_MS[subject.kind]
    gave_way = sum(one.lost[GaveWay.reason] for one in runs)
    lost = sum(one.lost.total() for one in runs) - gave_way
    let_in = lost + gave_way + sum(one.answered for one in runs)
    recovery = spread([one.recovery_s for one in runs])
    return [_flood_row(subject, one) for one in runs], [
        Check(
            f"{subject.device}: goodput at least {OF_CAPACITY:.0%} of the capacity",
            share.median >= OF_CAPACITY,
            f"{share} of it",
        ),
        Check(
            f"{subject.device}: refusals within {limit_ms:g} ms",
            0.0 < p99_ms < limit_ms,
            f"p99 {p99_ms:.1f} ms of the {len(running_ms)} while the machine ran, "
            f"{quantile(refused_ms, 0.99):.1f} ms of all {len(refused_ms)}",
        ),
        Check(
            f"{subject.device}: at most {1 - OF_ADMITTED:.0%} of those let in run out of time",
            let_in > 0 and lost <= (1 - OF_ADMITTED) * let_in,
            f"{lost} of {let_in}, and {gave_way} gave way",
        ),
        Check(
            f"{subject.device}: recovery within {RECOVERY_S:g} s",
            recovery.maximum < RECOVERY_S,
            f"{recovery} s",
        ),
    ]


async def flood(subject: Subject, rate: float) -> tuple[Load, Load, float]:
    """The flood, what one client had before it, and the seconds until that is so again."""
    options = subject.options
    one_by_one = partial(subject.ask, NORMAL, 60.0)
    before = await closed_loop(one_by_one, 1, 1.0, 5.0)
    arrivals = constant_arrivals(rate, options.flood_seconds + 2.0)
    call = partial(subject.ask, NORMAL, options.deadline)
    load = await open_loop(call, arrivals, 2.0, options.flood_seconds)
    # What it left waiting is not over when its last answer came: nothing waits for that here.
    after = await closed_loop(one_by_one, 1, 0.0, 3 * RECOVERY_S)
    limit_s = OF_BEFORE * quantile([one.latency_s for one in before.measured()], 0.99)
    behind_s = max(one.finished_s for one in load.outcomes) - load.window.end_s
    return load, before, behind_s + recovered(after, limit_s)


def _flood_row(subject: Subject, one: Flood) -> Row:
    load, refused_ms = one.load, one.refused_ms or [0.0]
    running_ms = one.undisturbed_ms(subject.stood) or [0.0]
    return {
        "device": subject.device,
        "capacity_a_second": one.capacity,
        "asked_a_second": len(load.measured()) / load.window.length_s,
        "goodput_a_second": load.throughput,
        "of_capacity": one.share,
        "refused": len(one.refused_ms),
        "refused_p50_ms": quantile(refused_ms, 0.5),
        "refused_p99_ms": quantile(refused_ms, 0.99),
        **_while_it_ran(subject.stood, [load], running_ms),
        "other_errors": str(dict(one.lost)) if one.lost else "",
        "answered_p99_ms": load.latency_ms().p99,
        "sent_late_p99_ms": load.late_ms().p99,
        "before_p99_ms": one.before.latency_ms().p99,
        "recovery_s": one.recovery_s,
        "generator_cores": load.generator_cores,
    }


def recovered(after: Load, limit_s: float) -> float:
    """Seconds until the first whole second in which every request, but for one in a hundred, was
    within the limit.
    """
    seconds: dict[int, list[Outcome]] = {}
    for one in after.outcomes:
        seconds.setdefault(int(one.intended_s), []).append(one)
    for second in sorted(seconds):
        outcomes = seconds[second]
        if any(one.reason for one in outcomes):
            continue
        if quantile([one.latency_s for one in outcomes], 0.99) <= limit_s:
            return float(second)
    return after.window.end_s


# --- the scenario -------------------------------------------------------------------------------


async def run(options: argparse.Namespace) -> Result:
    """Each device in turn: capacity, priorities, floods."""
    machine, started_at = hardware.describe(), results.now()
    rows: list[Row] = []
    flooded: list[Row] = []
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        for device in options.devices.split(","):
            simulated = device.startswith("sim")
            architecture = options.simulated if simulated else options.architecture
            folder = Path(name) / device.replace(":", "-")
            folder.mkdir()
            pack = weights.pack(
                weights.make(architecture, 0, folder / "model.pt"), folder / "packs"
            )
            worker_flags = ["--host-memory=0"] if simulated else []
            async with Standstills() as stood, Worker(device, worker_flags) as worker:
                size = options.simulated_size if simulated else options.image_size
                await worker.assign(MODEL, pack, size)
                subject = Subject(device, worker, stood, options)
                subject.capacity = await capacity_of(subject)
                more, found = await priorities(subject)
                under, told = await floods(subject)
                rows += more
                flooded += under
                checks += [*found, *told]
    return Result(
        scenario="overload",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"priorities": tuple(rows), "floods": tuple(flooded)},
        checks=tuple(checks),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

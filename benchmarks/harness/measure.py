"""One load on a pool with its cost: who spent how much CPU per request, and memory by role."""

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.loadgen import Call, Edge, Load, Outcome, Window
from benchmarks.harness.pool import Pool
from benchmarks.harness.processes import CpuMeter, by_role, memory
from benchmarks.harness.results import Figure, Row
from benchmarks.harness.statistics import median, spread
from yolopool.client.async_client import AsyncClient
from yolopool.client.requests import PriorityName

STAGES = (
    "route_ms", "load_wait_ms", "queue_ms", "decode_ms", "preprocess_ms", "inference_ms",
    "postprocess_ms", "total_ms",
)  # fmt: skip
MIB = 2**20

Begin = Callable[[Edge], Awaitable[Load]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A load and the CPU seconds per finished request of each role of the pool."""

    load: Load
    cpu_s_per_request: Mapping[str, float]


async def measured(pool: Pool, begin: Begin) -> Measured:
    """Runs a load with the pool's CPU read at the edges of its window."""
    roles = pool.roles()
    meter = CpuMeter(pid for pids in roles.values() for pid in pids)
    load = await begin(meter.read)
    return Measured(load, by_role(meter.used_s(), roles, load.finished))


def joined(parts: Sequence[Measured]) -> Measured:
    """Several runs of one load as one: their windows one behind the other, with what was answered
    in them; an error outside them counts as an error all the same.
    """
    outcomes: list[Outcome] = []
    cpu_s: defaultdict[str, float] = defaultdict(float)
    end_s = 0.0
    for part in parts:
        load = part.load
        later_s = end_s - load.window.begin_s
        for one in load.outcomes:
            if one.finished_s in load.window:
                outcomes.append(one.moved(later_s))
            elif one.reason:
                outcomes.append(one.moved(-math.inf))
        for role, seconds in part.cpu_s_per_request.items():
            cpu_s[role] += seconds * load.finished
        end_s += load.window.length_s
    generator_cpu_s = sum(part.load.generator_cpu_s for part in parts)
    whole = Load(tuple(outcomes), Window(0.0, end_s), generator_cpu_s)
    answered = max(1, whole.finished)
    return Measured(whole, {role: seconds / answered for role, seconds in cpu_s.items()})


def detecting(
    client: AsyncClient,
    images: Sequence[bytes],
    models: Sequence[str],
    timeout_s: float,
    priority: PriorityName = "normal",
) -> Call:
    """A call that sends the images in turn to the models in turn (both wrap round)."""

    async def call(number: int) -> Mapping[str, float]:
        answer = await client.detect(
            images[number % len(images)],
            model=models[number % len(models)],
            priority=priority,
            timeout_s=timeout_s,
        )
        return {stage: getattr(answer.timing, stage) for stage in STAGES}

    return call


def load_row(name: str, run: Measured) -> Row:
    """One run as a flat row; latencies are None if no request was answered."""
    load = run.load
    answered = any(not one.reason for one in load.measured())
    latency = load.latency_ms() if answered else None
    return {
        "load": name,
        "requests": len(load.measured()),
        "errors": sum(load.errors.values()),
        "images_per_s": load.throughput,
        "p50_ms": latency.p50 if latency else None,
        "p90_ms": latency.p90 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "late_p99_ms": load.late_ms().p99 if load.measured() else None,
        "generator_cores": load.generator_cores,
        "pool_cpu_ms_per_image": 1e3 * sum(run.cpu_s_per_request.values()),
    }


def errors_of(loads: Sequence[Load]) -> dict[str, int]:
    """Failed requests of all loads by reason, warm-ups included."""
    counts: Counter[str] = Counter()
    for load in loads:
        counts.update(load.errors)
    return dict(counts.most_common())


def stage_row(name: str, runs: Sequence[Measured]) -> Row:
    """Where the time of a request went: median over runs of each run's median stage, ms."""
    medians = [run.load.stage_medians_ms() for run in runs]
    row: dict[str, Figure] = {"load": name}
    for stage in STAGES:
        values = [one[stage] for one in medians if stage in one]
        row[stage] = median(values) if values else None
    return row


def over_runs(name: str, runs: Sequence[Row]) -> Row:
    """Runs of one load as one row: sums of counts, medians of figures, range of the rate."""
    figures = ("images_per_s", "p50_ms", "p90_ms", "p99_ms", "late_p99_ms", "generator_cores")
    rate = spread([float(run["images_per_s"] or 0) for run in runs])
    row: dict[str, Figure] = {"load": name, "runs": len(runs)}
    for count in ("requests", "errors"):
        row[count] = sum(int(run[count] or 0) for run in runs)
    for figure in (*figures, "pool_cpu_ms_per_image"):
        values = [float(value) for run in runs if (value := run[figure]) is not None]
        row[figure] = median(values) if values else None
    return {**row, "images_per_s_min": rate.minimum, "images_per_s_max": rate.maximum}


def process_rows(pool: Pool, runs: Sequence[Measured]) -> tuple[Row, ...]:
    """A row a role: CPU per request (median over runs) and memory now. Sum PSS, never RSS."""
    rows: list[Row] = []
    for role, pids in pool.roles().items():
        readings = [memory(pid) for pid in pids]
        rows.append(
            {
                "role": role,
                "processes": len(pids),
                "cpu_ms_per_request": median(
                    [1e3 * run.cpu_s_per_request.get(role, 0.0) for run in runs]
                ),
                "rss_mib": sum(reading.rss_bytes for reading in readings) / MIB,
                "pss_mib": sum(reading.pss_bytes for reading in readings) / MIB,
            }
        )
    return tuple(rows)

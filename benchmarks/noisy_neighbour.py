"""What a tenant waits beside another that sends ten times what it may, and beside one that fills
the queue of the device.

    python -m benchmarks.noisy_neighbour --devices sim:1,cpu --rounds 3 --seconds 20

A pool that asks for keys, one worker, one model that both tenants use. A sends its share of what
the device can do; B a multiple of its quota, or without one as much as many callers can. Latencies
are judged without the requests that were under way while the machine stood still, and told with
them.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.harness import dataset, fleet, hardware, results, weights
from benchmarks.harness.loadgen import (
    Load,
    closed_loop,
    constant_arrivals,
    open_loop,
    poisson_arrivals,
)
from benchmarks.harness.one_model import environment, jpeg
from benchmarks.harness.pool import Pool, PoolFlags
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills, stood_s, undisturbed
from benchmarks.harness.statistics import quantile
from yolopool.client.access.tenant_records import Tenant
from yolopool.client.async_client import AsyncClient

MODEL = "shapes"
# What is demanded: the p99 beside is at most that alone and so many of the longest passes.
OF_LONGEST = 1.2
# Of how much more than its quota B gets: its burst, in the first second.
OF_QUOTA = 1.05
TIMEOUT_S = 60.0
WARM_UP_S = 2.0


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.noisy_neighbour", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--devices", default="sim:1,cpu", help="one after the other")
    parser.add_argument("--simulated", default="yolov8x.yaml", help="model of a simulated device")
    parser.add_argument("--simulated-size", type=int, default=960, help="its longest side, pixels")
    parser.add_argument("--image-size", type=int, default=640, help="of the demo model on a CPU")
    parser.add_argument("--rounds", type=int, default=3, help="of A alone and beside")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each such run")
    parser.add_argument("--share", type=float, default=0.3, help="of A, of the capacity")
    parser.add_argument("--quota", type=float, default=0.3, help="of B, of the capacity")
    parser.add_argument("--factor", type=float, default=10.0, help="of what B sends, x its quota")
    parser.add_argument("--clients", type=int, default=48, help="of B, where it has no quota")
    parser.add_argument("--capacity-seconds", type=float, default=8.0, help="of measuring it")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    return parser


class KeyedPool(Pool):
    """A pool that asks who calls; `key` is the admin's once it is up."""

    key = ""

    async def _ready(self) -> None:
        file = self.data_dir / "admin.key"
        while not file.is_file() or not file.read_text().strip():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        self.key = file.read_text().strip()
        with environment(YOLOPOOL_API_KEY=self.key):
            await super()._ready()


@dataclass(slots=True)
class Subject:
    """A pool on one device, a client of each tenant, and what was measured."""

    device: str
    options: argparse.Namespace
    stood: Standstills
    admin: AsyncClient
    a: AsyncClient
    b: AsyncClient
    image: bytes
    capacity: float = 0.0
    loads: dict[str, list[Load]] = field(default_factory=dict)

    async def ask(self, client: AsyncClient, number: int) -> Mapping[str, float]:
        answer = await client.detect(self.image, MODEL, timeout_s=TIMEOUT_S)
        timing = answer.timing
        return {
            "pass_ms": timing.inference_ms + timing.postprocess_ms,
            "queue_ms": timing.queue_ms,
            "decode_ms": timing.decode_ms + timing.preprocess_ms,
            "route_ms": timing.route_ms,
            "total_ms": timing.total_ms,
        }

    def keep(self, name: str, load: Load) -> None:
        self.loads.setdefault(name, []).append(load)

    async def a_sends(self, name: str, seed: int) -> None:
        rate = max(1.0, self.options.share * self.capacity)
        arrivals = poisson_arrivals(rate, self.options.seconds + WARM_UP_S, seed)
        call = partial(self.ask, self.a)
        self.keep(name, await open_loop(call, arrivals, WARM_UP_S, self.options.seconds))

    async def beside_quota(self, seed: int) -> None:
        """B sends `factor` x what it may."""
        quota = max(1.0, self.options.quota * self.capacity)
        await self.admin.set_tenant(Tenant("b", requests_per_s=quota))
        length_s = self.options.seconds + WARM_UP_S + 1.0
        arrivals = constant_arrivals(self.options.factor * quota, length_s)
        call = partial(self.ask, self.b)
        flood = asyncio.create_task(open_loop(call, arrivals, 1.0, length_s - 1.0))
        await asyncio.sleep(1.0)
        await self.a_sends("A beside B at its quota", seed)
        self.keep("B", await flood)

    async def beside_flood(self, seed: int) -> None:
        """B has no quota: its callers keep the queue full."""
        await self.admin.set_tenant(Tenant("b"))
        call = partial(self.ask, self.b)
        flood = asyncio.create_task(
            closed_loop(call, self.options.clients, 1.0, self.options.seconds + WARM_UP_S)
        )
        await asyncio.sleep(1.0)
        await self.a_sends("A beside a flood of B", seed)
        self.keep("B without a quota", await flood)


async def measured(subject: Subject) -> tuple[list[Row], list[Check]]:
    """A alone, beside B at its quota, and beside a flood of B, in turns."""
    options = subject.options
    load = await closed_loop(
        partial(subject.ask, subject.a), options.clients, 2.0, options.capacity_seconds
    )
    subject.capacity = load.throughput
    for number in range(options.rounds):
        seed = options.seed + 3 * number
        await subject.a_sends("A alone", seed)
        await subject.beside_quota(seed + 1)
        await subject.beside_flood(seed + 2)
        await subject.a_sends("A alone", seed)
    rows = [_row(subject, name) for name in subject.loads]
    return rows, _checks(subject, {str(row["requests"]): row for row in rows})


def _row(subject: Subject, name: str) -> Row:
    loads = subject.loads[name]
    every = [one for load in loads for one in load.measured()]
    calm = [one for load in loads for one in undisturbed(load, subject.stood.spans)]
    times_ms = [one.latency_s * 1e3 for one in every if not one.reason] or [0.0]
    calm_ms = [one.latency_s * 1e3 for one in calm if not one.reason] or [0.0]
    answered = [one for one in every if not one.reason]
    refused = Counter(one.reason for one in every if one.reason)
    windows_s = sum(load.window.length_s for load in loads)
    stood = sum(stood_s(load, subject.stood.spans) for load in loads) / windows_s
    passes_ms = [one.stages_ms["pass_ms"] for one in calm if not one.reason] or [0.0]
    return {
        "device": subject.device,
        "requests": name,
        "sent_a_second": len(every) / windows_s,
        "answered_a_second": sum(load.throughput for load in loads) / len(loads),
        "refused": sum(refused.values()),
        "reasons": str(dict(refused)) if refused else "",
        "p50_ms": quantile(times_ms, 0.5),
        "p99_ms": quantile(times_ms, 0.99),
        "while_it_ran_p99_ms": quantile(calm_ms, 0.99),
        "longest_pass_ms": max(passes_ms),
        **{
            f"{stage}_p50_ms": quantile([one.stages_ms[f"{stage}_ms"] for one in answered], 0.5)
            for stage in ("queue", "decode", "route", "total")
            if answered
        },
        "stood_still": stood if subject.stood.is_known else None,
        "generator_cores": max(load.generator_cores for load in loads),
    }


def _checks(subject: Subject, rows: Mapping[str, Row]) -> list[Check]:
    def figure(name: str, column: str) -> float:
        return float(rows[name][column] or 0.0)

    alone_ms = figure("A alone", "while_it_ran_p99_ms")
    checks = []
    for name, other in (
        ("A beside B at its quota", "B"),
        ("A beside a flood of B", "B without a quota"),
    ):
        longest_ms = max(figure(one, "longest_pass_ms") for one in (name, other))
        beside_ms, limit_ms = (
            figure(name, "while_it_ran_p99_ms"),
            alone_ms + OF_LONGEST * longest_ms,
        )
        checks.append(
            Check(
                f"{subject.device}: p99 of {name}",
                beside_ms <= limit_ms,
                f"{beside_ms:.1f} ms while the machine ran, alone {alone_ms:.1f} ms + {OF_LONGEST}"
                f" x {longest_ms:.1f} ms allow {limit_ms:.1f} ms; of all "
                f"{figure(name, 'p99_ms'):.1f} ms, alone {figure('A alone', 'p99_ms'):.1f}",
            )
        )
        checks.append(
            Check(
                f"{subject.device}: nothing of {name} was refused",
                not rows[name]["refused"],
                str(rows[name]["reasons"]) or "none",
            )
        )
    quota = max(1.0, subject.options.quota * subject.capacity)
    got = figure("B", "answered_a_second")
    checks.append(
        Check(
            f"{subject.device}: B gets its quota and no more",
            0.9 * quota <= got <= OF_QUOTA * quota + 1.0,
            f"{got:.1f} a second of {quota:.1f}, of {figure('B', 'sent_a_second'):.1f} sent",
        )
    )
    return checks


async def run(options: argparse.Namespace) -> Result:
    """Each device in turn."""
    machine, started_at = hardware.describe(), results.now()
    rows: list[Row] = []
    checks: list[Check] = []
    for device in options.devices.split(","):
        more, found = await _on(device, options)
        rows += more
        checks += found
    return Result(
        scenario="noisy_neighbour",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"latencies": tuple(rows)},
        checks=tuple(checks),
    )


async def _on(device: str, options: argparse.Namespace) -> tuple[list[Row], list[Check]]:
    simulated = device.startswith("sim")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yolopool-")))
        file, size = dataset.DEMO_WEIGHTS, options.image_size
        if simulated:
            file = weights.make(options.simulated, 0, folder / "model.pt")
            size = options.simulated_size
        stood = await stack.enter_async_context(Standstills())
        pool = KeyedPool(PoolFlags(device, demo=False, extra=("--auth",)))
        await stack.enter_async_context(pool)
        admin = await stack.enter_async_context(AsyncClient(pool.address, pool.key))
        await fleet.register(admin, MODEL, file, size)
        await admin.load(MODEL, pin=True)
        clients = []
        for tenant in "ab":
            await admin.set_tenant(Tenant(tenant))
            key = await admin.create_key("detect", tenant=tenant)
            clients.append(await stack.enter_async_context(AsyncClient(pool.address, key.secret)))
        subject = Subject(device, options, stood, admin, clients[0], clients[1], jpeg())
        return await measured(subject)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

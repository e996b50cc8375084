"""What decisions of a control plane cost as the fleet grows: choices, heartbeats, plans, memory.

    python -m benchmarks.control_scale

One process, no network: what is measured is the Python that every request and every heartbeat of
a worker runs. The p99 of choices over the number of replicas is kept as a picture beside it.
"""

import argparse
import gc
import itertools
import sys
import tracemalloc
from collections.abc import Sequence
from random import Random

from benchmarks.harness import hardware, results
from benchmarks.harness.calls import Measured, Measurement, timed
from benchmarks.harness.results import Check, Figure, Result, Row
from benchmarks.harness.statistics import quantile
from benchmarks.plan_scale import plans
from control_plane.convert.heartbeat import HeartbeatDecoder
from control_plane.convert.workers import worker_in
from control_plane.routing.balancer import choose
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from yolopool.cli.svg_chart import line_chart
from yolopool.server.clock import Clock
from yolopool.v1 import fleet_pb2, types_pb2

NOW = 1000.0  # monotonic seconds
KEY = VersionKey("team/m0", 1)
STEP = 50  # replicas between two points of the curve
SIZES = (1, 2, 5, 10, *range(STEP, 1001, STEP))
SEED = 7
LIMIT_CHOOSE_US, LIMIT_HEARTBEAT_US = 20.0, 100.0
KIB = 1024


def said(number: int, replicas: int, round_: int = 0, changed: int = 0) -> fleet_pb2.Worker:
    """What a worker reports in a round; `changed` of its replicas were used since the last."""
    return fleet_pb2.Worker(
        id=f"worker-{number}",
        incarnation=f"incarnation-{number}",
        address="10.0.0.1:50051",
        device="cuda:0",
        device_kind="cuda",
        state=fleet_pb2.WORKER_STATE_READY,
        ledger=types_pb2.Ledger(budget_bytes=2**34, weights_bytes=2**32, workspace_bytes=2**28),
        load=types_pb2.LoadReport(
            outstanding=number % 5, queue_capacity=64, estimated_wait_ms=4.0 * (number % 5)
        ),
        labels={"pool": "main", "zone": "a"},
        replicas=[_replica(one, round_ if one < changed else 0) for one in range(replicas)],
    )


def _replica(number: int, uses: int) -> types_pb2.Replica:
    return types_pb2.Replica(
        version=types_pb2.VersionKey(model=f"team/m{number}", version=1),
        variant=types_pb2.Variant(backend="torch", precision="fp16", device_kind="cuda"),
        state=types_pb2.REPLICA_STATE_HOT,
        weights_bytes=10**7,
        workspace_bytes=10**6,
        outstanding=uses % 3,
        last_used_unix_s=1e9 + uses,
        requests_total=1000 + uses,
        loads_total=1,
        inference_ms=4.0,
        load_ms=80.0,
        pack=f"{number:064x}",
        footprint=types_pb2.Footprint(
            weights_bytes=10**7, workspace_bytes=10**6, max_batch=8, swap_ms=2.0
        ),
        swaps_total=3,
        rates=types_pb2.Rates(fast=1.5 + uses % 7, middle=1.0, slow=0.5),
        queue_ms=1.0 + uses % 7,
        busy=0.2,
        hot_since_unix_s=1e9,
    )


def a_view() -> View:
    return View(Clock(lambda: NOW, lambda: 1e9))


# --- choose ---------------------------------------------------------------------------------------


def choices(options: argparse.Namespace) -> Measured:
    """`choose` over replicas of one version, with leases that ran out and workers tried before."""
    rows: list[Row] = []
    for size, stale, tried in itertools.product(SIZES, (0.0, 0.3), (0, 3)):
        view, rng = a_view(), Random(SEED)
        late = set(rng.sample(range(size), int(stale * size)))
        for number in range(size):
            lease_until_s = NOW if number in late else NOW + 1e6
            view.join(worker_in(said(number, 1), lease_until_s), None)
        excluded = {f"incarnation-{number}" for number in rng.sample(range(size), min(tried, size))}
        taken = timed(lambda: choose(view, KEY, NOW, rng, excluded), options.rounds)  # noqa: B023
        rows.append(
            {
                "replicas": size,
                "stale": stale,
                "excluded": len(excluded),
                "p50_us": quantile(taken, 0.5),
                "p99_us": quantile(taken, 0.99),
            }
        )
    hardest = [row for row in rows if row["stale"] == 0.3 and row["excluded"] == 3]
    worst = max(float(row["p99_us"] or 0) for row in rows)
    last = float(hardest[-1]["p99_us"] or 0)
    limit = (
        f"p99 of a choice among {SIZES[-1]} replicas, 30 % stale, is below {LIMIT_CHOOSE_US:g} us"
    )
    curve = [float(row["p99_us"] or 0) for row in hardest if int(row["replicas"] or 0) % STEP == 0]
    return Measured(
        tuple(rows),
        (Check(limit, last < LIMIT_CHOOSE_US, f"{last:.1f} us, {worst:.1f} us at any size"),),
        line_chart(
            curve, "A choice, 30 % of leases stale, 3 excluded", "replicas", "p99, us", STEP
        ),
    )


# --- heartbeats -----------------------------------------------------------------------------------


def heartbeats(options: argparse.Namespace) -> Measured:
    """One heartbeat, parsed already, into the view: over replicas, and how many of them changed."""
    rows: list[Row] = []
    for replicas, share in itertools.product((1, 5, 10, 20, 50, 100), (0.0, 0.25, 1.0)):
        changed = round(share * replicas)
        messages = itertools.cycle(
            [
                fleet_pb2.Worker.FromString(said(0, replicas, turn, changed).SerializeToString())
                for turn in range(1, 4)
            ]
        )
        view, inventory = a_view(), HeartbeatDecoder()
        view.join(worker_in(said(0, replicas), NOW + 1e6), None)
        for key in list(view.workers["worker-0"].replicas):
            view.sent("worker-0", key)

        def beat() -> None:
            joined = view.workers["worker-0"]  # noqa: B023
            worker = inventory.read(next(messages), NOW + 1e6, joined)  # noqa: B023
            view.apply_heartbeat(worker, None)  # noqa: B023

        beat()
        taken = timed(beat, options.rounds // 5)
        rows.append(
            {
                "replicas": replicas,
                "changed": changed,
                "p50_us": quantile(taken, 0.5),
                "p99_us": quantile(taken, 0.99),
            }
        )
    usual = next(row for row in rows if row["replicas"] == 20 and row["changed"] == 5)
    p50 = float(usual["p50_us"] or 0)
    limit = f"a heartbeat of 20 replicas, 5 changed, takes less than {LIMIT_HEARTBEAT_US:g} us"
    return Measured(tuple(rows), (Check(limit, p50 < LIMIT_HEARTBEAT_US, f"{p50:.0f} us"),))


# --- memory ---------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> Measured:
    """What the view of a fleet takes, messages that its streams keep not counted."""
    rows: list[Row] = []
    for workers, replicas in ((1, 20), (10, 20), (100, 20), (1000, 20)):
        gc.collect()
        tracemalloc.start()
        view = a_view()
        for number in range(workers):
            view.join(worker_in(said(number, replicas), NOW + 1e6), None)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        rows.append(
            {
                "workers": workers,
                "replicas": workers * replicas,
                "view_kib": size / KIB,
                "kib_per_worker": size / KIB / workers,
            }
        )
    return Measured(tuple(rows))


MEASUREMENTS = (
    Measurement("choose", choices),
    Measurement("heartbeat", heartbeats),
    Measurement("view memory", memory),
    Measurement("plan", plans),
)


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.control_scale", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--rounds", type=int, default=20_000, help="calls a figure")
    return parser


def run(options: argparse.Namespace) -> Result:
    """All measurements, one after another; curves are written beside the figures."""
    machine, started_at = hardware.describe(), results.now()
    tables: dict[str, tuple[Row, ...]] = {}
    checks: list[Check] = []
    for measurement in MEASUREMENTS:
        found = measurement.run(options)
        tables[measurement.name] = found.rows
        checks += found.checks
        if found.curve:
            options.results.mkdir(parents=True, exist_ok=True)
            name = f"control_scale-{measurement.name}-{started_at[:10]}.svg"
            (options.results / name).write_text(found.curve)
    settings: dict[str, Figure] = results.settings_of(options)
    return Result("control_scale", started_at, settings, machine, tables, tuple(checks))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())

"""What a plan costs as the fleet grows: all of it from a snapshot, and what one change costs.

Part of control_scale. Fleets are settled, ten versions a worker, in tiers that are nearly full:
the next miss has to find who leaves for it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random

from benchmarks.harness.calls import Measured, timed
from benchmarks.harness.results import Check, Row
from benchmarks.harness.statistics import quantile
from control_plane.scheduling.plan import plan, replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.command import Blocked, Command
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import (
    DeviceVariant,
    ModelVersion,
    Pack,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.types.worker import Ledger, Replica, WorkerInfo, WorkerState
from yolopool.cli.svg_chart import line_chart
from yolopool.server.arrival_rates import ArrivalRates
from yolopool.vocabulary import ReplicaState

MIB = 2**20
NOW, UNIX = 1000.0, 1e6
STEP = 100  # workers between two points of the curve
WORKERS = tuple(range(STEP, 1001, STEP))
VERSIONS_A_WORKER = 10
SIZES_MIB = (10, 38, 80, 105, 228)
LIMIT_WHOLE_MS, LIMIT_CHANGE_MS = 200.0, 10.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A settled fleet, and one version that is wanted and nowhere."""

    snapshot: Snapshot
    missed: VersionKey


def a_fleet(workers: int, seed: int = 7) -> Fleet:
    """Every fifth version has two copies; room for one more of the smallest on no worker."""
    rng = Random(seed)
    versions, wants, footprints = {}, {}, {}
    held: list[dict[VersionKey, Replica]] = [{} for _ in range(workers)]
    for number in range(workers * VERSIONS_A_WORKER + 1):
        key, digest = VersionKey(f"team/m{number}", 1), f"{number:064x}"
        size = rng.choice(SIZES_MIB) * MIB
        pack = Pack(digest, "yolo11", "detect", ("a",), size, 10**8, 10**7)
        settings = VersionSettings(image_size=640)
        versions[key] = ModelVersion(key, VersionState.READY, "a" * 64, settings, 0.0, pack=pack)
        measured = Footprint(size, 50 * MIB, 0, 4, swap_ms=30.0, fetch_ms=200.0)
        footprints[FootprintKey.of(digest, DeviceVariant.usual("sim"))] = measured
        copies = 1 if number % 5 else 2
        wants[key] = Want(key, copies, False, WantSource.MISS, UNIX - 500)
        if number == workers * VERSIONS_A_WORKER:
            break  # the one that is missed
        rate = 1 / (1 + number % 97)
        for copy in range(copies):
            held[(number + copy * (workers // 2)) % workers][key] = Replica(
                key,
                ReplicaState.WARM if number % 3 else ReplicaState.HOT,
                size,
                50 * MIB,
                last_used_unix_s=UNIX - 10,
                footprint=measured,
                pack=digest,
                rates=ArrivalRates(rate, rate, rate),
                hot_since_unix_s=UNIX - 300,
            )
    infos = [_worker(number, replicas) for number, replicas in enumerate(held)]
    desired = Desired(1, "c", versions, wants)
    snapshot = Snapshot(desired, {one.id: one for one in infos}, {}, footprints, UNIX)
    return Fleet(snapshot, key)


def _worker(number: int, replicas: dict[VersionKey, Replica]) -> WorkerInfo:
    weights = sum(one.weights_bytes for one in replicas.values())
    ledger = Ledger(1000 * MIB, 100 * MIB, assignable_bytes=weights + min(SIZES_MIB) * MIB - 1)
    return WorkerInfo(
        f"w{number}", "i", "10.0.0.1:50051", "sim:0", "sim", WorkerState.READY, NOW + 1e6, ledger,
        replicas=replicas,
    )  # fmt: skip


def plans(options: argparse.Namespace) -> Measured:
    """A whole plan; and after a heartbeat that changed one worker, and for a miss."""
    rows: list[Row] = []
    for workers in WORKERS:
        fleet = a_fleet(workers)
        whole = timed(lambda: plan(fleet.snapshot, NOW), max(5, options.rounds // 2000))  # noqa: B023
        beats = timed(_beats(fleet).__next__, max(20, options.rounds // 50))
        misses = timed(_misses(fleet).__next__, max(20, options.rounds // 200))
        rows.append(
            {
                "workers": workers,
                "versions": len(fleet.snapshot.desired.versions),
                "whole_p50_ms": quantile(whole, 0.5) / 1000,
                "heartbeat_p50_ms": quantile(beats, 0.5) / 1000,
                "heartbeat_p99_ms": quantile(beats, 0.99) / 1000,
                "miss_p50_ms": quantile(misses, 0.5) / 1000,
                "miss_p99_ms": quantile(misses, 0.99) / 1000,
            }
        )
    last = rows[-1]
    whole_ms, miss_ms = float(last["whole_p50_ms"] or 0), float(last["miss_p50_ms"] or 0)
    size = f"{last['workers']} workers and {last['versions']:,} versions"
    checks = (
        Check(
            f"a whole plan over {size} takes less than {LIMIT_WHOLE_MS:g} ms",
            whole_ms < LIMIT_WHOLE_MS,
            f"{whole_ms:.0f} ms",
        ),
        Check(
            f"a change planned over {size} takes less than {LIMIT_CHANGE_MS:g} ms",
            max(miss_ms, float(last["heartbeat_p50_ms"] or 0)) < LIMIT_CHANGE_MS,
            f"a miss {miss_ms:.2f} ms, a heartbeat {last['heartbeat_p50_ms']:.2f} ms",
        ),
    )
    title = "A whole plan, ten versions a worker"
    curve = [float(row["whole_p50_ms"] or 0) for row in rows]
    return Measured(tuple(rows), checks, line_chart(curve, title, "workers", "ms", STEP))


def _settled(fleet: Fleet) -> Snapshot:
    """Without the version that is nowhere."""
    desired = fleet.snapshot.desired
    wants = {key: want for key, want in desired.wants.items() if key != fleet.missed}
    return Snapshot(
        Desired(1, "c", desired.versions, wants),
        fleet.snapshot.workers,
        {},
        fleet.snapshot.footprints,
        UNIX,
    )


def _beats(fleet: Fleet) -> Iterator[list[Command]]:
    snapshot = _settled(fleet)
    proposed = ProposedFleet.of(snapshot, NOW)
    for worker in cycle(snapshot.workers.values()):
        proposed.put(worker, snapshot, NOW)
        commands = replan(proposed, snapshot, NOW, set(worker.replicas))
        if commands:
            raise RuntimeError(f"a settled fleet moves: {commands[0]}")
        yield commands


def _misses(fleet: Fleet) -> Iterator[list[Command]]:
    snapshot = fleet.snapshot
    proposed = ProposedFleet.of(snapshot, NOW)
    while True:
        commands = replan(proposed, snapshot, NOW, {fleet.missed})
        if not commands or isinstance(commands[-1], Blocked):
            raise RuntimeError(f"no place was made: {commands}")
        # What was planned is not carried out: the next miss finds the same fleet.
        proposed.put(snapshot.workers[commands[0].worker], snapshot, NOW)  # type: ignore[union-attr]
        yield commands

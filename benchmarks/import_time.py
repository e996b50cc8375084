"""What an import costs, step by step: in an interpreter of its own, and forked from a prepared
parent; then many of them through a pool.

    python -m benchmarks.import_time --models 120

Both ways in turns, with the sandbox and the child's low priority. `before` is a pool that imports
one file after the other, each in an interpreter of its own.
"""

import argparse
import asyncio
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import hardware, results, weights
from benchmarks.harness.fleet import register
from benchmarks.harness.pool import Pool, PoolFlags
from benchmarks.harness.processes import cpu_seconds, cpu_seconds_of_ended, memory
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median, quantile
from benchmarks.harness.timed_job import FILE, FIRST, LATER
from importer import child, store
from importer.processes import fresh_child
from importer.processes.forked_child import Zygote
from importer.processes.running import Start
from yolopool.client.async_client import AsyncClient
from yolopool.v1.importing_pb2 import ImportProgress
from yolopool.v1.types_pb2 import VersionSettings

TIMED = ("-m", "benchmarks.harness.timed_job")
GOAL_S, GOAL_MODELS, GOAL_MINUTES = 2.0, 500, 10.0
_LIMITS = child.Limits(4 * 1024**3, 300.0)
# Files that differ, from one: by the names of their classes.
_COPIES = """
import sys, torch
from pathlib import Path
content = torch.load(sys.argv[1], weights_only=False)
for number in range(int(sys.argv[3])):
    content["model"].names = {key: f"{number} {key}" for key in content["model"].names}
    torch.save(content, Path(sys.argv[2]) / f"{number}.pt")
"""
_ROLES = ("importer", "control_plane", "redis")
_BEFORE = {"YOLOPOOL_IMPORTER_PREPARED": "false", "YOLOPOOL_IMPORTER_PARALLEL": "1"}


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.import_time", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--architecture", default="yolov8n.yaml", help="of the files: 6.5 MB")
    parser.add_argument("--repeats", type=int, default=7, help="of each way, step by step")
    parser.add_argument("--models", type=int, default=120, help="through the pool")
    parser.add_argument("--models-before", type=int, default=20, help="the same, as before")
    parser.add_argument("--callers", type=int, default=8, help="registrations under way")
    return parser


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one import by step, in order, the whole, and of the processor."""

    steps: dict[str, float]
    private_bytes: int
    peak_rss_bytes: int


async def timed(path: Path, digest: str, start: Start, folder: Path) -> Timed:
    """One import, up to the pack in a store."""
    with store.scratch(folder) as work:
        asked = time.monotonic()
        artifact = store.fetch_artifact(path.as_uri(), work, 2**32)
        pack = await child.run(
            artifact, digest, VersionSettings(), work, _LIMITS, _ignore, start=start
        )
        told = time.monotonic()
        store.verify_pack(work, pack.digest)
        store.publish(work, (folder / "packs").as_uri(), pack.digest)
        done = time.monotonic()
        times = json.loads((work / FILE).read_text())
    inside: dict[str, float] = times["steps"]
    steps = {"start of the process": times["began"] - asked}
    steps |= {name: inside.get(name, 0.0) for name in (*FIRST, *LATER, "write")}
    steps["the rest of the job"] = times["ended"] - times["began"] - sum(inside.values())
    steps["end of the process"] = told - times["ended"]
    steps["verify and publish"] = done - told
    steps["whole"] = done - asked
    steps["processor time of the child"] = times["cpu_s"]
    return Timed(steps, times["private_bytes"], times["peak_rss_bytes"])


async def _ignore(progress: ImportProgress) -> None: ...


async def by_step(
    path: Path, folder: Path, repeats: int
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The table of steps, medians of both ways, and that of the parent and its children."""
    digest = _sha256(path)
    began = time.monotonic()
    zygote = Zygote(folder, ("-P", *TIMED))
    runs: dict[str, list[Timed]] = {"fresh": [], "forked": []}
    try:
        await zygote.ready()
        ready_s, parent = time.monotonic() - began, memory(zygote.pid)
        fresh: Start = functools.partial(fresh_child.start, program=TIMED)
        ways: dict[str, Start] = {"fresh": fresh, "forked": zygote.start}
        for name, start in [*ways.items()] * (repeats + 1):
            runs[name].append(await timed(path, digest, start, folder))
        after = memory(zygote.pid)
    finally:
        zygote.close()
    counted = {name: all_of[1:] for name, all_of in runs.items()}  # the first finds cold files
    rows: list[Row] = []
    for step in counted["fresh"][0].steps:
        figures = {name: median([one.steps[step] for one in of]) for name, of in counted.items()}
        rows.append({"step": step, **{f"{name}_ms": 1e3 * s for name, s in figures.items()}})
    held: list[Row] = [
        _held("prepared parent", parent.rss_bytes, parent.private_bytes),
        _held("prepared parent after the imports", after.rss_bytes, after.private_bytes),
    ]
    held[0] = {**held[0], "ready_after_s": ready_s}
    for name, of in counted.items():
        peak = median([one.peak_rss_bytes for one in of])
        held.append(_held(f"{name} child", peak, median([one.private_bytes for one in of])))
    return tuple(rows), tuple(held)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _held(process: str, rss_bytes: float, private_bytes: float) -> Row:
    return {"process": process, "rss_mb": rss_bytes / 1e6, "private_mb": private_bytes / 1e6}


async def through_a_pool(name: str, files: Sequence[Path], callers: int) -> Row:
    """Registers all files with a pool that has a simulated device; then one alone."""
    *many, last = files
    async with Pool(PoolFlags("sim:1", demo=False)) as pool, AsyncClient(pool.address) as client:
        await register(client, "first", last)  # when the importer is ready, too
        waiting, took, used = iter(many), list[float](), _cpu_s(pool)

        async def caller() -> None:
            for path in waiting:
                began = time.monotonic()
                await register(client, path.stem, path)
                took.append(time.monotonic() - began)

        began = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(callers)))
        wall_s = time.monotonic() - began
        used = {role: s - used[role] for role, s in _cpu_s(pool).items()}
        alone = [await _alone(client, number, path) for number, path in enumerate(many[:5])]
    each_s = wall_s / len(many)
    return {
        "pool": name,
        "models": len(many),
        "wall_s": wall_s,
        "s_a_model": each_s,
        f"minutes_for_{GOAL_MODELS}": each_s * GOAL_MODELS / 60,
        "registration_p50_s": median(took),
        "registration_p99_s": quantile(took, 0.99),
        "alone_p50_s": median(alone),
        **{f"{role}_cpu_s_a_model": used[role] / len(many) for role in _ROLES},
    }


def _cpu_s(pool: Pool) -> dict[str, float]:
    """Processor time so far by role; an importer's with that of its children."""
    return {
        role: sum(cpu_seconds(pid) + cpu_seconds_of_ended(pid) for pid in pids)
        for role, pids in pool.roles().items()
    }


async def _alone(client: AsyncClient, number: int, path: Path) -> float:
    """Seconds of a registration with nothing beside it. Of a file under other names of classes,
    since one that was imported is READY at once.
    """
    began = time.monotonic()
    version = await client.register(f"alone-{number}", path, class_names=_names(number))
    assert version.state == "READY", version
    return time.monotonic() - began


def _names(number: int) -> list[str]:
    return [f"{number} class {count}" for count in range(80)]


def files_for(options: argparse.Namespace, folder: Path) -> list[Path]:
    """As many files as the scenario needs, each of other bytes."""
    base = weights.make(options.architecture, 0, folder / "base.pt")
    count = max(options.models, options.models_before) + 1
    command = [sys.executable, "-c", _COPIES, str(base), str(folder), str(count)]
    subprocess.run(command, check=True, env={**os.environ, "YOLO_CONFIG_DIR": str(folder)})
    return [folder / f"{number}.pt" for number in range(count)]


async def run(options: argparse.Namespace) -> Result:
    """Step by step, then the pool as it was and as it is."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as scratch:
        files = files_for(options, Path(scratch))
        size_mb = files[0].stat().st_size / 1e6
        steps, processes = await by_step(files[0], Path(scratch), options.repeats)
        os.environ.update(_BEFORE)
        some = files[-options.models_before - 1 :]
        before = await through_a_pool("before", some, options.callers)
        for name in _BEFORE:
            del os.environ[name]
        load = os.getloadavg()[0]
        after = await through_a_pool("now", files[-options.models - 1 :], options.callers)
    return Result(
        scenario="import_time",
        started_at=started_at,
        settings={**results.settings_of(options), "file_mb": size_mb, "load_in_between": load},
        hardware=machine,
        tables={"steps": steps, "memory": processes, "through a pool": (before, after)},
        checks=_checks(steps, after),
    )


def _checks(steps: Sequence[Row], after: Row) -> tuple[Check, ...]:
    figures: dict[str, Any] = dict(after)
    whole_s = next(float(str(row["forked_ms"])) for row in steps if row["step"] == "whole") / 1e3
    minutes, models = figures[f"minutes_for_{GOAL_MODELS}"], figures["models"]
    told = f"{minutes:.1f} min" if models >= GOAL_MODELS else f"{minutes:.1f} min, from {models}"
    return (
        Check(f"an import takes {GOAL_S:g} s at most", whole_s <= GOAL_S, f"{whole_s:.2f} s"),
        Check(
            f"a registration alone takes {GOAL_S:g} s at most",
            figures["alone_p50_s"] <= GOAL_S,
            f"{figures['alone_p50_s']:.2f} s with its upload",
        ),
        Check(
            f"{GOAL_MODELS} models take {GOAL_MINUTES:g} min at most",
            minutes <= GOAL_MINUTES,
            told,
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

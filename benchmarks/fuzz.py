"""Fuzzes the doors of the pool, and tells what was found, the slowest inputs and what memory grew.

    python -m benchmarks.fuzz --seconds 600
    python -m benchmarks.fuzz --only http,calls --runs 100000

A process a target, with coverage (atheris) where that is installed. Inputs that reach more code
are kept in the folder, and the next run goes on from there. A process that dies leaves the input
that it was at, which is a finding, and another goes on. Then the inputs that were kept are run
again and again without the instruments: for the time and the memory that they take by themselves.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from tests.fuzz.target import MODULES, Target, target
from tests.fuzz.watch import SLOW_S, keep, noted

# An execution that takes longer is ended with its process.
HANG_S = 30.0
# Of a replay: as allocators have it.
GROWTH_BYTES = 24 * 1024**2
# A target whose process dies more often is given up.
MOST_DEATHS = 20
REPLAY_SHARE, MOST_REPLAYS = 0.1, 20_000
_SLOWEST = 5


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--runs", type=int, default=0, help="executions of all; 0: by time alone")
    parser.add_argument("--seconds", type=float, default=0, help="of all; 0: by executions alone")
    parser.add_argument("--only", default="", help="targets, with commas; all if empty")
    parser.add_argument("--workers", type=int, default=2, help="targets at a time")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="of corpora, findings")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the changes")
    parser.add_argument("--engine", default="", help="atheris or mutation; the first that is there")
    return parser


@dataclass(slots=True)
class Fuzzed:
    """What came of one target, over all its processes."""

    target: Target
    folder: Path
    engine: str
    runs: int
    seconds: float
    executions: int = 0
    took_s: float = 0.0
    deaths: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    replay: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def growth_bytes(self) -> int:
        return int(self.replay["rss_last_bytes"]) - int(self.replay["rss_first_bytes"])

    def row(self) -> Row:
        outcomes = self.last.get("outcomes", {})
        return {
            "target": self.target.name,
            "executions": self.executions,
            "executions_per_s": self.executions / max(self.took_s, 1e-9),
            "corpus": self.last.get("corpus", 0),
            "outcomes": len(outcomes),
            "findings": len(self.findings),
            "slowest_ms": 1000 * max((one["seconds"] for one in self.replay["slowest"]), default=0),
            "replayed": self.replay["executions"],
            "rss_before_mib": self.replay["rss_first_bytes"] / 2**20,
            "rss_after_mib": self.replay["rss_last_bytes"] / 2**20,
        }


async def fuzz(fuzzed: Fuzzed, seed: int) -> None:
    """All executions of a target; then the replay."""
    while fuzzed.executions < fuzzed.runs and fuzzed.took_s < fuzzed.seconds:
        left = fuzzed.runs - fuzzed.executions, fuzzed.seconds - fuzzed.took_s
        told = await _child(fuzzed, "fuzz", *left, seed + fuzzed.deaths)
        fuzzed.executions += told["executions"]
        fuzzed.took_s += told["seconds"]
        fuzzed.last = told
        if told["finished"]:
            break
        fuzzed.deaths += 1
        if fuzzed.deaths > MOST_DEATHS:
            break
    count = min(MOST_REPLAYS, max(200, round(REPLAY_SHARE * fuzzed.executions)))
    fuzzed.replay = await _child(fuzzed, "replay", count, max(10.0, fuzzed.took_s / 4), seed)
    files = sorted((fuzzed.folder / "findings").glob("*.json"))
    fuzzed.findings = [json.loads(file.read_text()) for file in files]


async def _child(
    fuzzed: Fuzzed, mode: str, runs: int, seconds: float, seed: int
) -> dict[str, Any]:
    """Runs one process to its end; what it told at last."""
    folder = fuzzed.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{mode}.json").unlink(missing_ok=True)
    with (folder / f"{mode}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fuzz.child", fuzzed.target.name, f"--folder={folder}",
            f"--mode={mode}", f"--engine={fuzzed.engine}", f"--runs={runs}",
            f"--seconds={seconds}", f"--seed={seed % 2**31 + 1}", stdout=log, stderr=log,
        )  # fmt: skip
        hung = await _ended(process, folder / "current")
    told: dict[str, Any] = {"executions": 0, "seconds": 0.0, "finished": False, "slowest": [],
                            "rss_first_bytes": 0, "rss_last_bytes": 0}  # fmt: skip
    with contextlib.suppress(OSError):
        told |= json.loads((folder / f"{mode}.json").read_text())
    if not told["finished"]:
        _died(fuzzed, mode, hung, process.returncode)
    return told


async def _ended(process: asyncio.subprocess.Process, current: Path) -> bool:
    """Waits for the process; whether it was ended because an execution hung."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await process.wait()
                return False
        doing = noted(current)
        if doing is not None and time.time() - doing[0] > HANG_S:
            process.kill()
            await process.wait()
            return True


def _died(fuzzed: Fuzzed, mode: str, hung: bool, status: int | None) -> None:
    doing = noted(fuzzed.folder / "current")
    data = doing[1] if doing is not None else b""
    tail = (fuzzed.folder / f"{mode}.log").read_text(errors="replace")[-1500:]
    kind = "hang" if hung else "crash"
    how = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
    name = fuzzed.target.name
    keep(fuzzed.folder, name, kind, f"{kind}: {how} in {name}", f"{how}\n{tail}", data)


async def run(options: argparse.Namespace) -> Result:
    """Every target, some at a time."""
    machine, started_at = hardware.describe(), results.now()
    names = [name for name in options.only.split(",") if name] or list(MODULES)
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "mutation")
    targets = [target(name) for name in names]
    shares = sum(one.share for one in targets)
    seconds = options.seconds * options.workers or 1e9
    every = [
        Fuzzed(
            one,
            options.folder / one.name,
            engine,
            round(options.runs * one.share / shares) if options.runs else 10**9,
            # By time alone all get the same.
            seconds / len(targets) if not options.runs else seconds,
        )
        for one in targets
    ]
    places = asyncio.Semaphore(options.workers)

    async def one_of(fuzzed: Fuzzed) -> None:
        async with places:
            await fuzz(fuzzed, options.seed)
            print(f"{fuzzed.target.name}: {fuzzed.executions} executions, "
                  f"{len(fuzzed.findings)} findings", flush=True)  # fmt: skip

    await asyncio.gather(*map(one_of, every))
    return Result(
        scenario="fuzz",
        started_at=started_at,
        settings={**results.settings_of(options), "engine": engine},
        hardware=machine,
        tables={
            "targets": tuple(one.row() for one in every),
            "slowest inputs": tuple(_slowest(every)),
            "findings": tuple(_findings(every)),
        },
        checks=tuple(checks(every)),
    )


def _slowest(every: Sequence[Fuzzed]) -> list[Row]:
    rows = []
    for one in every:
        for slow in one.replay["slowest"][:_SLOWEST]:
            rows.append(
                {
                    "target": one.target.name,
                    "ms": 1000 * slow["seconds"],
                    "outcome": slow["outcome"],
                    "size_bytes": slow["size_bytes"],
                    "sha256": slow["sha256"][:16],
                }
            )
    return sorted(rows, key=lambda row: -row["ms"])


def _findings(every: Sequence[Fuzzed]) -> list[Row]:
    return [
        {name: finding[name] for name in ("target", "kind", "cause", "size_bytes")}
        for one in every
        for finding in one.findings
    ]


def checks(every: Sequence[Fuzzed]) -> list[Check]:
    """What must hold."""
    found = [f"{one['target']}: {one['cause']}" for each in every for one in each.findings]
    slowest = max((s["seconds"] for one in every for s in one.replay["slowest"]), default=0.0)
    grown = [one for one in every if one.growth_bytes > GROWTH_BYTES]
    total = sum(one.executions for one in every)
    words = ", ".join(f"{one.target.name} {one.growth_bytes / 2**20:.0f} MiB" for one in grown)
    return [
        Check("nothing but documented answers", not found, "; ".join(found)[:500] or f"{total}"),
        Check(f"no execution over {SLOW_S:g} s", slowest <= SLOW_S, f"{slowest:.3f} s"),
        Check(f"no growth over {GROWTH_BYTES >> 20} MiB", not grown, words or "none"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    if not options.runs and not options.seconds:
        options.seconds = 300.0
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

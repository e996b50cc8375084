"""Fuzzes the doors of the pool, and tells what was found, the slowest inputs and what memory grew.

    python -m benchmarks.fuzz --seconds 600
    python -m benchmarks.fuzz --only http,calls --runs 100000

A process a target. A part of the executions is watched for coverage, where atheris is installed:
inputs that reach more code are kept in the folder, and the next run goes on from there. The rest
changes these inputs without looking, at several times the speed. A process that dies leaves the
input that it was at, which is a finding, and another goes on. Then the inputs that were kept are
run again and again without the instruments: for the time and the memory that they take.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from tests.fuzz.target import MODULES, Target, target
from tests.fuzz.watch import keep, noted

# An execution that takes longer is ended with its process.
HANG_S = 30.0
# Of a replay: as allocators have it.
GROWTH_BYTES = 24 * 1024**2
# A target whose process dies more often is given up.
MOST_DEATHS = 20
NO_END = 1e9
REPLAY_SHARE, MOST_REPLAYS = 0.1, 20_000
_SLOWEST, _OUTCOMES = 5, 8


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    results.add_flags(parser)
    parser.add_argument(
        "--runs",
        type=int,
        default=0,
        help="executions in all, with those of earlier runs of the folder; 0: by time alone",
    )
    parser.add_argument("--seconds", type=float, default=0, help="of all; 0: by executions alone")
    parser.add_argument("--only", default="", help="targets, with commas; all if empty")
    parser.add_argument("--workers", type=int, default=2, help="targets at a time")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="of corpora, findings")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the changes")
    parser.add_argument(
        "--watched", type=float, default=0.2, help="share of the executions with coverage (atheris)"
    )
    return parser


@dataclass(slots=True)
class Tally:
    """What came of a target's processes since its folder was made."""

    executions: int = 0
    took_s: float = 0.0
    deaths: int = 0
    corpus: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def note(self, told: Mapping[str, Any]) -> None:
        """What a process told at its end."""
        self.executions += told["executions"]
        self.took_s += told["seconds"]
        self.corpus = told["corpus"]
        self.outcomes = dict(Counter(self.outcomes) + Counter(told["outcomes"]))


class Fuzzed:
    """A target and its folder, where everything is kept: an interrupted run goes on from there."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.tally = Tally()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            self.tally = Tally(**json.loads((folder / "tally.json").read_text()))
        self._retry()

    def _retry(self) -> None:
        """Findings may have been mended since: they are tried again, but for those that end the
        process.
        """
        place = self.folder / "retry"
        place.mkdir(exist_ok=True)
        for file in (self.folder / "findings").glob("[els]*.bin"):  # exception, log, slow
            file.rename(place / file.name)
            file.with_suffix(".json").unlink(missing_ok=True)

    def note(self, told: Mapping[str, Any]) -> None:
        self.tally.note(told)
        (self.folder / "tally.json").write_text(json.dumps(asdict(self.tally)))

    @property
    def findings(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "findings").glob("*.json"))
        return [json.loads(file.read_text()) for file in files]

    @property
    def replay(self) -> dict[str, Any]:
        """What the last replay told."""
        return told_in(self.folder / "replay.json")

    @property
    def slowest_s(self) -> float:
        """Of the replay, in which nothing is watched."""
        return max((float(one["seconds"]) for one in self.replay["slowest"]), default=0.0)

    @property
    def growth_bytes(self) -> int:
        return int(self.replay["rss_last_bytes"]) - int(self.replay["rss_first_bytes"])

    def row(self) -> Row:
        tally, replay = self.tally, self.replay
        return {
            "target": self.target.name,
            "executions": tally.executions,
            "executions_per_s": tally.executions / max(tally.took_s, 1e-9),
            "corpus": tally.corpus,
            "outcomes": len(tally.outcomes),
            "findings": len(self.findings),
            "slowest_ms": 1000 * self.slowest_s,
            "bound_ms": 1000 * self.target.slow_s,
            "replayed": replay["executions"],
            "rss_before_mib": replay["rss_first_bytes"] / 2**20,
            "rss_after_mib": replay["rss_last_bytes"] / 2**20,
        }


def told_in(path: Path) -> dict[str, Any]:
    """What a process told, or nothing."""
    told: dict[str, Any] = {
        "executions": 0, "seconds": 0.0, "corpus": 0, "outcomes": {}, "slowest": [],
        "rss_first_bytes": 0, "rss_last_bytes": 0, "finished": False,
    }  # fmt: skip
    with contextlib.suppress(OSError):
        told |= json.loads(path.read_text())
    return told


async def fuzz(fuzzed: Fuzzed, runs: int, seconds: float, watched: float, seed: int) -> None:
    """So many executions of a target in all, and so many seconds now; then the replay."""
    until_s = fuzzed.tally.took_s + seconds
    for engine, share in (("atheris", watched), ("mutation", 1.0)):
        end_s = until_s - (1 - share) * seconds
        deaths = 0
        while fuzzed.tally.executions < share * runs and fuzzed.tally.took_s < end_s:
            left = round(share * runs) - fuzzed.tally.executions, end_s - fuzzed.tally.took_s
            told = await _child(fuzzed, "fuzz", engine, *left, seed + fuzzed.tally.executions)
            fuzzed.note(told)
            deaths += not told["finished"]
            if told["finished"] or deaths > MOST_DEATHS:
                break
        fuzzed.tally.deaths += deaths
    count = min(MOST_REPLAYS, max(200, round(REPLAY_SHARE * fuzzed.tally.executions)))
    await _child(fuzzed, "replay", "mutation", count, max(10.0, fuzzed.tally.took_s / 4), seed)


async def _child(
    fuzzed: Fuzzed, mode: str, engine: str, runs: int, seconds: float, seed: int
) -> dict[str, Any]:
    """Runs one process to its end; what it told at last."""
    folder = fuzzed.folder
    (folder / f"{mode}.json").unlink(missing_ok=True)
    with (folder / f"{mode}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fuzz.child", fuzzed.target.name, f"--folder={folder}",
            f"--mode={mode}", f"--engine={engine}", f"--runs={runs}",
            f"--seconds={seconds}", f"--seed={seed % 2**31 + 1}", stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            hung = await _ended(process, folder / "current")
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            if mode == "fuzz":
                fuzzed.note(told_in(folder / "fuzz.json"))
            raise
    told = told_in(folder / f"{mode}.json")
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
    """Every target, some at a time. Interrupted, it tells what there is."""
    machine, started_at = hardware.describe(), results.now()
    names = [name for name in options.only.split(",") if name] or list(MODULES)
    watched = options.watched if importlib.util.find_spec("atheris") else 0.0
    every = [Fuzzed(target(name), options.folder / name) for name in names]
    shares = sum(one.target.share for one in every)
    # By time alone all get the same.
    seconds = options.seconds * options.workers / len(every) or NO_END
    places = asyncio.Semaphore(options.workers)

    async def one_of(one: Fuzzed) -> None:
        runs = round(options.runs * one.target.share / shares) or int(NO_END)
        async with places:
            await fuzz(one, runs, seconds, watched, options.seed)
            told = f"{one.tally.executions} executions, {len(one.findings)} findings"
            print(f"{one.target.name}: {told}", flush=True)

    work = asyncio.gather(*map(one_of, every))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return Result(
        scenario="fuzz",
        started_at=started_at,
        settings={**results.settings_of(options), "watched": watched},
        hardware=machine,
        tables={
            "targets": tuple(one.row() for one in every),
            "slowest inputs": tuple(_slowest(every)),
            "outcomes": tuple(_outcomes(every)),
            "findings": tuple(_findings(every)),
        },
        checks=tuple(checks(every)),
    )


def _slowest(every: Sequence[Fuzzed]) -> list[Row]:
    found = [
        (float(slow["seconds"]), one.target.name, slow)
        for one in every
        for slow in one.replay["slowest"][:_SLOWEST]
    ]
    return [
        {
            "target": name,
            "ms": 1000 * seconds,
            "outcome": slow["outcome"],
            "size_bytes": slow["size_bytes"],
            "sha256": slow["sha256"][:16],
        }
        for seconds, name, slow in sorted(found, key=lambda one: -one[0])
    ]


def _outcomes(every: Sequence[Fuzzed]) -> list[Row]:
    """How deep inputs got."""
    return [
        {"target": one.target.name, "outcome": outcome, "executions": count}
        for one in every
        for outcome, count in Counter(one.tally.outcomes).most_common(_OUTCOMES)
    ]


def _findings(every: Sequence[Fuzzed]) -> list[Row]:
    return [
        {name: finding[name] for name in ("target", "kind", "cause", "size_bytes")}
        for one in every
        for finding in one.findings
    ]


def checks(every: Sequence[Fuzzed]) -> list[Check]:
    """What must hold."""
    found = [f"{one['target']}: {one['cause']}" for each in every for one in each.findings]
    slow = [one for one in every if one.slowest_s > one.target.slow_s]
    grown = [one for one in every if one.growth_bytes > GROWTH_BYTES]
    total = sum(one.tally.executions for one in every)
    words = ", ".join(f"{one.target.name} {one.growth_bytes / 2**20:.0f} MiB" for one in grown)
    return [
        Check("nothing but documented answers", not found, "; ".join(found)[:500] or f"{total}"),
        Check(
            "no execution takes longer than its target's bound",
            not slow,
            ", ".join(f"{one.target.name} {one.slowest_s:.2f} s" for one in slow or every),
        ),
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

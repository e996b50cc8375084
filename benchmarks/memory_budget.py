"""Room for two of three models: does the ledger say what the process really uses?

    python -m benchmarks.memory_budget --architecture yolov8m.yaml

First Detects in turn, so that each evicts another; then each model is loaded and unloaded alone.
Memory is read from outside (smaps_rollup of the worker) and set against the change of the
ledger's weights: the workspace is promised to a pass and is not resident between passes.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.fleet import register
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.processes import memory
from benchmarks.harness.results import Check, Result, Row
from yolopool.client.async_client import AsyncClient
from yolopool.client.fleet_records import Ledger

MIB = 2**20
# Beyond two models and their working memory: less than half a model, so that no third one fits.
SLACK = 0.3
# Between what the ledger says of the weights and what the process has resident.
AGREEMENT = 0.10
MODELS = ("budget/one", "budget/two", "budget/three")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory_budget", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--architecture", default="yolov8m.yaml", help="weights should dominate")
    parser.add_argument("--rounds", type=int, default=3, help="through all models")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds before each reading")
    parser.add_argument("--timeout", type=float, default=120.0, help="deadline of a request, s")
    return parser


@dataclass(frozen=True, slots=True)
class Reading:
    """A worker at one moment, bytes: as the kernel sees it, and as its ledger says."""

    rss: int
    pss: int
    own: int
    weights: int
    used: int
    budget: int


@dataclass(frozen=True, slots=True)
class Step:
    """An action on one model with the readings around it."""

    action: str
    model: str
    before: Reading
    after: Reading

    def row(self) -> Row:
        """Changes in MiB, and how far the process' change is from the ledger's, of the latter."""
        ledger = self.after.weights - self.before.weights
        rss = self.after.rss - self.before.rss
        return {
            "action": self.action,
            "model": self.model,
            "weights_change_mib": ledger / MIB,
            "rss_change_mib": rss / MIB,
            "pss_change_mib": (self.after.pss - self.before.pss) / MIB,
            # A swap of equals changes nothing: a ratio to it would mean nothing.
            "relative_difference": (rss - ledger) / abs(ledger) if abs(ledger) > MIB else None,
            "ledger_used_mib": self.after.used / MIB,
            "ledger_budget_mib": self.after.budget / MIB,
            "pss_mib": self.after.pss / MIB,
            "own_mib": self.after.own / MIB,
        }


@dataclass(frozen=True, slots=True)
class Bench:
    """A pool with one worker, and what it takes to act on it and read it."""

    pool: Pool
    client: AsyncClient
    options: argparse.Namespace

    async def read(self) -> Reading:
        """Reads process and ledger, after the allocator and a heartbeat had their time."""
        await asyncio.sleep(self.options.settle)
        ledger = (await self.client.workers())[0].ledger
        seen = [memory(pid) for pid in self.pool.roles()["worker"]]
        return Reading(
            rss=sum(one.rss_bytes for one in seen),
            pss=sum(one.pss_bytes for one in seen),
            own=sum(one.own_bytes for one in seen),
            weights=ledger.weights_bytes,
            used=ledger.used_bytes,
            budget=ledger.budget_bytes,
        )

    async def step(self, action: str, model: str, before: Reading) -> Step:
        """Does one thing to one model; `before` is the reading that the last step ended with."""
        if action == "detect":
            image = dataset.encoded()[0]
            await self.client.detect(image, model=model, timeout_s=self.options.timeout)
        elif action == "load":
            await self.client.load(model)
        else:
            await self.client.unload(model)
        return Step(action, model, before, await self.read())

    async def steps(self, actions: Sequence[str]) -> list[Step]:
        """The actions on each model in turn, `rounds` times."""
        taken: list[Step] = []
        before = await self.read()
        for _ in range(self.options.rounds):
            for model in MODELS:
                for action in actions:
                    taken.append(await self.step(action, model, before))
                    before = taken[-1].after
        return taken


def room_for_two(ledger: Ledger) -> int:
    """The budget with room for two, from the ledger of a worker that holds one of the models."""
    return ledger.used_bytes + round(ledger.weights_bytes * (1 + SLACK))


@contextlib.asynccontextmanager
async def bench(
    options: argparse.Namespace, budget: str, files: Sequence[Path]
) -> AsyncIterator[Bench]:
    """A pool of one worker with the files registered."""
    pool_flags = PoolFlags(options.devices, budget, demo=False)
    async with (
        Pool(pool_flags, options.pool_log) as pool,
        AsyncClient(pool.address) as client,
    ):
        for name, path in zip(MODELS, files, strict=False):
            await register(client, name, path)
        yield Bench(pool, client, options)


async def run(options: argparse.Namespace) -> Result:
    """Learns what one model needs, then measures with room for two."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        files = [
            weights.make(options.architecture, seed, Path(folder) / f"{seed}.pt")
            for seed in range(len(MODELS))
        ]
        budget = options.memory_budget
        if not budget:
            async with bench(options, "", files[:1]) as one:
                await one.step("detect", MODELS[0], await one.read())
                budget = str(room_for_two((await one.client.workers())[0].ledger))
        async with bench(options, budget, files) as three:
            turns = await three.steps(["detect"])
            for model in MODELS:
                await three.client.unload(model)
            alone = await three.steps(["load", "unload"])
    return Result(
        scenario="memory_budget",
        started_at=started_at,
        settings=results.settings_of(options) | {"memory_budget": budget},
        hardware=machine,
        tables={
            "detects in turn": tuple(step.row() for step in turns),
            "load and unload": tuple(step.row() for step in alone),
        },
        checks=tuple(verdicts(turns, alone)),
    )


def verdicts(turns: Sequence[Step], alone: Sequence[Step]) -> list[Check]:
    """What must hold: a ledger within its budget, and one that tells the truth."""
    over = [step for step in (*turns, *alone) if step.after.used > step.after.budget]
    peak = max(step.after.used / step.after.budget for step in turns)
    checks = [Check("the ledger stays within its budget", not over, f"{peak:.1%} at most")]
    outside = max(step.after.own / step.after.budget for step in (*turns, *alone))
    words = f"{outside:.1%} at most"
    checks.append(Check("so does the process, without the files it maps", outside <= 1, words))
    for action in ("load", "unload"):
        shares = [
            value
            for step in alone
            if step.action == action
            and isinstance(value := step.row()["relative_difference"], float)
        ]
        worst = max(map(abs, shares), default=1.0)
        detail = f"worst {worst:.1%} of {len(shares)}"
        passed = len(shares) * 2 == len(alone) and worst <= AGREEMENT
        checks.append(Check(f"memory follows the ledger at every {action}", passed, detail))
    return checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

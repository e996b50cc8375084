"""How long a fleet file of many models takes, applied once, again, and restored from its export.

    python -m benchmarks.fleet_apply --models 500 --imports 500

Each command is a process of its own, as a person runs it. `--imports` of the models have settings
of their own, and so an import each; the others have those of the first, whose pack they share, and
cost the registry alone. The restored pool has an empty Redis and a copy of the artifact store.
"""

import argparse
import asyncio
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import dataset, hardware, results
from benchmarks.harness.pool import COMMAND, Pool, PoolFlags
from benchmarks.harness.results import Check, Result, Row

AGAIN_S = 5.0  # the most that a file without changes may take
IMPORT_S = 2.0  # the most that an import may take, in the mean
_HEAD = "fleet: 1\nmodels:\n"


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet_apply", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--models", type=int, default=500, help="in the file")
    parser.add_argument("--imports", type=int, default=500, help="of them, that need one each")
    parser.add_argument("--rounds", type=int, default=5, help="of the file without changes")
    parser.add_argument("--pool-log", type=Path, help="keep the log of the first pool here")
    return parser


def entry(number: int, imports: int) -> str:
    """A model of the file. Its settings are its own, or those of the first."""
    own = number if number < imports else 0
    return (
        f"  - name: fleet/m{number:04}\n"
        f"    artifact: model.pt\n"
        f"    settings: {{image_size: 320, confidence: {0.1 + own / 10_000:.4f}}}\n"
        f"    labels: {{line: {number % 10}}}\n"
        f"    placement: {{max_replicas: {1 + number % 3}}}\n"
        f"    batching: {{cpu: {{max_batch: {1 + number % 8}}}}}\n"
    )


@dataclass(frozen=True, slots=True)
class Run:
    """A command: what it printed on stdout, the seconds of its process, and those of them in which
    it had a core.
    """

    out: str
    seconds: float
    cpu_s: float


async def command(pool: Pool, *words: str | Path) -> Run:
    """Runs `yolopool`. Raises RuntimeError if it fails."""
    began, cores = time.monotonic(), _children_s()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *map(str, words), "--address", pool.address,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, told = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}: {told.decode()[-2000:]}")
    return Run(out.decode(), time.monotonic() - began, _children_s() - cores)


def _children_s() -> float:
    """Seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(slots=True)
class Measured:
    rows: list[Row]
    again: list[Run]
    unchanged: bool = False
    same: bool = False
    import_s: float = 0.0


def row(what: str, run: Run) -> Row:
    return {"what": what, "process_s": run.seconds, "cpu_s": run.cpu_s}


async def applied(pool: Pool, what: str, first: Path, whole: Path, found: Measured) -> float:
    """What has an import each, then the rest; the seconds of the imports."""
    begun = await command(pool, "apply", "-f", first, "--wait")
    rest = await command(pool, "apply", "-f", whole, "--wait")
    found.rows += [
        row(f"{what}: those with an import each", begun),
        row(f"{what}: the others", rest),
    ]
    return begun.seconds


async def measure(options: argparse.Namespace, folder: Path) -> Measured:
    """Both pools, one after the other."""
    shutil.copy(dataset.DEMO_WEIGHTS, folder / "model.pt")
    entries = [entry(number, options.imports) for number in range(options.models)]
    first, whole = folder / "first.yaml", folder / "whole.yaml"
    first.write_text(_HEAD + "".join(entries[: options.imports]))
    whole.write_text(_HEAD + "".join(entries))
    found = Measured([], [])
    pool_flags = PoolFlags(devices="sim:1", demo=False)
    async with Pool(pool_flags, options.pool_log) as pool:
        took_s = await applied(pool, "first time", first, whole, found)
        found.import_s = took_s / options.imports
        for _ in range(options.rounds):
            again = await command(pool, "apply", "-f", whole, "--wait")
            found.again.append(again)
            found.unchanged = again.out.splitlines() == [
                f"0 to add, 0 to change, 0 to delete, {options.models} unchanged"
            ]
        export = await command(pool, "export", "--output", folder / "exported.yaml")
        shutil.copytree(pool.data_dir / "store", folder / "store")
    async with Pool(pool_flags, store=folder / "store") as pool:
        await applied(pool, "restored", first, folder / "exported.yaml", found)
        await command(pool, "export", "--output", folder / "again.yaml")
    texts = [(folder / name).read_text() for name in ("exported.yaml", "again.yaml")]
    found.same = texts[0] == texts[1]
    found.rows += [
        row("again, nothing changes", sorted(found.again, key=lambda one: one.seconds)[-1]),
        row("export", export),
    ]
    return found


async def run(options: argparse.Namespace) -> Result:
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        found = await measure(options, Path(name))
    return Result(
        scenario="fleet_apply",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={f"{options.models} models": tuple(found.rows)},
        checks=checks(found),
    )


def checks(found: Measured) -> tuple[Check, ...]:
    again_s = [one.seconds for one in found.again]
    return (
        Check(
            f"without changes in less than {AGAIN_S:g} s",
            found.unchanged and max(again_s) < AGAIN_S,
            f"{max(again_s):.2f} s at most",
        ),
        Check("the fleet of the export is the same", found.same, "by the text of its own export"),
        Check(
            f"an import in at most {IMPORT_S:g} s",
            found.import_s <= IMPORT_S,
            f"{found.import_s:.2f} s in the mean",
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

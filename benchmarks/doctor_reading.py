"""How long the doctor takes for a large log, and how much memory.

    python -m benchmarks.doctor_reading

A process of its own reads the log, as a user's command does.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from benchmarks.doctor.pool_model import PoolModel
from benchmarks.doctor.situations import SITUATIONS, shortened
from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result

SECONDS, MEBIBYTES = 60.0, 400.0
SITUATION = "MEMORY_PRESSURE"


def write(path: Path, size_bytes: int) -> int:
    """A log of at least so many bytes; returns its lines. One run's lines again and again."""
    rng = Random(SITUATION)
    physics = shortened(SITUATIONS[SITUATION](rng), 10_000)
    lines = [json.dumps(line).encode() + b"\n" for line in PoolModel(physics, rng).lines()]
    written = count = 0
    with path.open("wb") as log:
        while written < size_bytes:
            written += log.write(b"".join(lines))
            count += len(lines)
    return count


def run(options: argparse.Namespace) -> Result:
    started_at = results.now()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.jsonl"
        lines = write(log, int(options.gigabytes * 2**30))
        began = time.perf_counter()
        command = [sys.executable, "-m", "yolopool", "doctor", str(log), "--json"]
        done = subprocess.run(command, capture_output=True, check=True)
        took_s = time.perf_counter() - began
        size_bytes = log.stat().st_size
    most_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    told = json.loads(done.stdout)
    first = told["findings"][0]["cause"] if told["findings"] else "none"
    row = {
        "gigabytes": round(size_bytes / 2**30, 3),
        "lines": lines,
        "looked_at": told["requests"],
        "seconds": round(took_s, 2),
        "megabytes_a_second": round(size_bytes / 1e6 / took_s, 1),
        "peak_rss_mib": round(most_mib, 1),
        "first_finding": first,
    }
    return Result(
        scenario="doctor_reading",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=hardware.describe(),
        tables={"one log": (row,)},
        checks=(
            Check(f"at most {SECONDS:.0f} s for each GB", took_s <= SECONDS, f"{took_s:.1f} s"),
            Check(f"below {MEBIBYTES:.0f} MiB", most_mib < MEBIBYTES, f"{most_mib:.0f} MiB"),
            Check("the cause comes first", first == SITUATION, first),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.doctor_reading", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the log")
    options = parser.parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())

"""Threads, waiting, event loop and processes of a pool on the CPU: all ways in turns, saturated.

    python -m benchmarks.pool_threads --ways usual,two-workers --rounds 5 --seconds 20

Every way is a pool of its own, and only one is asked at a time. `echo` ways have a worker that
answers at once, so that what is left is the way through client, control plane and worker.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import hardware, results
from benchmarks.harness.loadgen import closed_loop
from benchmarks.harness.measure import (
    Measured,
    detecting,
    errors_of,
    load_row,
    measured,
    over_runs,
)
from benchmarks.harness.one_model import ECHO, TIMEOUT_S, environment, jpeg, started
from benchmarks.harness.pool import PoolFlags, add_flags
from benchmarks.harness.results import Check, Result, Row
from yolopool.client.async_client import AsyncClient

_ECHO = f"exec(compile(open({ECHO + '/sitecustomize.py'!r}).read(), 'echo', 'exec'))\n"
_UVLOOP = "import asyncio, uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
# After the supervisor's word and before torch reads it.
_SPIN = "import os; [os.environ.pop(n, 0) for n in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')]\n"
# A thread that wakes takes its core from a pass at once.
_AT_ONCE = "import os; os.sched_setscheduler = lambda *_: None\n"


@dataclass(frozen=True, slots=True)
class Way:
    """A pool: devices, worker settings, and Python that each of its processes begins with."""

    devices: str = "cpu"
    settings: tuple[tuple[str, str], ...] = ()
    begin: str = ""


WAYS = {
    "usual": Way(),
    "one-thread": Way(settings=(("COMPUTE_THREADS", "1"),)),
    "two-workers": Way("cpu:2x1"),
    "two-unbound": Way("cpu:2x1", begin="import os; os.sched_setaffinity = lambda *_: None\n"),
    "intake-1": Way(settings=(("INTAKE_THREADS", "1"),)),
    "intake-4": Way(settings=(("INTAKE_THREADS", "4"),)),
    "at-once": Way(begin=_AT_ONCE),
    "two-at-once": Way("cpu:2x1", begin=_AT_ONCE),
    "spin": Way(begin=_SPIN),
    "spin-short": Way(begin="import os; os.environ['GOMP_SPINCOUNT'] = '20000'\n"),
    "switch-0.5ms": Way(begin="import sys; sys.setswitchinterval(0.0005)\n"),
    "uvloop": Way(begin=_UVLOOP),
    "echo": Way("sim:1", begin=_ECHO),
    "echo-uvloop": Way("sim:1", begin=_UVLOOP + _ECHO),
}


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.pool_threads", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--rounds", type=int, default=5, help="through all ways")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured time of each load")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before it, not counted")
    parser.add_argument("--clients", type=int, default=12, help="requests in flight")
    parser.add_argument("--image-size", type=int, default=640, help="of the version, pixels")
    return parser


async def measure(options: argparse.Namespace) -> dict[str, dict[int, list[Measured]]]:
    """Runs by way and number of clients: many, and one."""
    image, names = jpeg(), options.ways.split(",")
    runs: dict[str, dict[int, list[Measured]]] = {
        name: {options.clients: [], 1: []} for name in names
    }
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yolopool-")))
        pools = {}
        for name in names:
            way = WAYS[name]
            begin = folder / name / "sitecustomize.py"
            begin.parent.mkdir()
            begin.write_text(way.begin)
            paths = (str(begin.parent), os.environ.get("PYTHONPATH", ""))
            changes = {f"YOLOPOOL_WORKER_{key}": value for key, value in way.settings}
            with environment(PYTHONPATH=os.pathsep.join(filter(None, paths)), **changes):
                pool = await started(
                    stack, PoolFlags(way.devices, demo=False), options.image_size, options.pool_log
                )
            pools[name] = (pool, await stack.enter_async_context(AsyncClient(pool.address)))
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                pool, client = pools[name]
                call = detecting(client, [image], ["shapes"], TIMEOUT_S)
                for clients, of in runs[name].items():
                    begin_load = partial(
                        closed_loop, call, clients, options.warmup, options.seconds
                    )
                    of.append(await measured(pool, begin_load))
    return runs


async def run(options: argparse.Namespace) -> Result:
    """All ways in turns."""
    machine, started_at = hardware.describe(), results.now()
    runs = await measure(options)
    each = {
        (name, clients): [load_row(name, one) for one in of]
        for name, by_clients in runs.items()
        for clients, of in by_clients.items()
    }
    rows: list[Row] = [
        {"clients": clients, **over_runs(name, of)} for (name, clients), of in each.items()
    ]
    loads = [one.load for by_clients in runs.values() for of in by_clients.values() for one in of]
    errors = errors_of(loads)
    return Result(
        scenario="pool_threads",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "saturated": tuple(row for row in rows if row["clients"] != 1),
            "one at a time": tuple(row for row in rows if row["clients"] == 1),
        },
        checks=(Check("every request was answered", not errors, str(errors or "no error")),),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

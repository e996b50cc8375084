"""What a pool has of everything that could grow, read from outside, at one moment.

Of a process with children (a worker's supervisor, an importer) its whole session counts as one, and
memory is what is resident without the pages of files: those come and go with other processes.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.processes import PROC, in_sessions, memory
from control_plane.store.redis import redis_keys as keys
from tests.chaos.pool import Pool
from tests.chaos.stores import connected
from tests.chaos.watch import metrics_of

MIB = 2**20
# Streams of the store that are cut at a length: they grow until they have it.
CAPPED = (keys.EVENTS, keys.LOG)

Sample = Mapping[str, float]


async def take(pool: Pool) -> dict[str, float]:
    """Figures by name, such as `control-plane-0 rss MiB`; what does not answer now is left out."""
    found = await asyncio.to_thread(_processes, pool)
    found |= await _store(pool)
    for name, http in pool.http.items():
        try:
            text = await asyncio.to_thread(metrics_of, http)
        except OSError:
            continue  # away: a fault is on
        found[f"{name} metric series"] = sum(
            not line.startswith("#") for line in text.splitlines() if line
        )
    return found


def _processes(pool: Pool) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, process in pool.processes.items():
        if not process.is_running:
            continue
        own, whole = 0.0, 0.0
        descriptors = threads = 0
        leader = process.pids[-1]
        for pid in in_sessions({leader}):
            try:
                held = memory(pid).own_bytes / MIB
                descriptors += _entries(pid, "fd")
                threads += _entries(pid, "task")
            except (ProcessLookupError, FileNotFoundError, KeyError):
                continue  # it has just ended
            whole += held
            own += held if pid == leader else 0.0
        found[f"{name} memory MiB"] = whole
        if whole > own:
            found[f"{name} own memory MiB"] = own
        found[f"{name} descriptors"] = descriptors
        found[f"{name} threads"] = threads
    return found


def _entries(pid: int, folder: str) -> int:
    return sum(1 for _ in (PROC / str(pid) / folder).iterdir())


async def _store(pool: Pool) -> dict[str, float]:
    try:
        async with connected(pool.store.url) as redis:
            used = (await redis.info("memory"))["used_memory"]
            capped = [await redis.memory_usage(key, samples=0) or 0 for key in CAPPED]
            lengths = [await redis.hlen(key) for key in keys.COUNTED]
            found = {
                "store keys": float(await redis.dbsize()),
                "store memory MiB": (used - sum(capped)) / MIB,
                "store events": float(await redis.xlen(keys.EVENTS)),
                "registry fields": float(sum(lengths)),
            }
    except Exception:  # stopped, frozen, or refuses: a fault is on
        return {}
    return found


def logs_mib(folder: Path) -> float:
    """What the processes have written to their logs."""
    return sum(path.stat().st_size for path in folder.glob("*.log")) / MIB

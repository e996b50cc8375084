"""An alias is promoted and rolled back under load: does a caller notice?

    python -m benchmarks.alias_switch --promotions 20 --rollbacks 5

Callers ask `shapes:stable` without a pause, first quietly, then while the alias is promoted from
version to version, each of which has to be loaded, and rolled back several times in a row; then
quietly again. Demanded: no request fails, no answer is of a version that the alias did not mean
while the request was under way, and no window of ten seconds has less than 80 % of the throughput
of the quiet ones.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from benchmarks.harness import dataset, fleet, hardware, pool, results
from benchmarks.harness.one_model import jpeg
from benchmarks.harness.pool import Pool, PoolFlags
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills
from benchmarks.harness.statistics import median, quantile
from benchmarks.harness.switches import (
    WINDOW_S,
    Answer,
    Callers,
    Move,
    latest_s,
    lives,
    moved,
    out_of_time,
    windows,
)
from yolopool.client.async_client import AsyncClient

MODEL, ALIAS = "shapes", "shapes:stable"
LEAST = 0.8
SETTLE_S = 3.0


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.alias_switch", description=__doc__)
    results.add_flags(parser)
    pool.add_flags(parser)
    parser.add_argument("--image-size", type=int, default=320, help="of the demo model, pixels")
    parser.add_argument("--callers", type=int, default=32, help="that ask all the time")
    parser.add_argument("--promotions", type=int, default=20, help="in a row")
    parser.add_argument("--rollbacks", type=int, default=5, help="in a row, after them")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two orders")
    parser.add_argument("--quiet", type=float, default=40.0, help="seconds before and after")
    parser.add_argument("--replicas", type=int, default=1, help="of each version")
    return parser


async def orders(client: AsyncClient, options: argparse.Namespace) -> list[Move]:
    """All promotions, then all rollbacks."""
    made = []
    for number in range(2, options.promotions + 2):
        made.append(await moved("promote", partial(client.promote, f"{MODEL}@{number}", "stable")))
        await asyncio.sleep(options.pause)
    for _ in range(options.rollbacks):
        made.append(await moved("rollback", partial(client.rollback, ALIAS)))
        await asyncio.sleep(options.pause)
    return made


async def run(options: argparse.Namespace) -> Result:
    """Registers the versions, then measures."""
    machine, started_at = hardware.describe(), results.now()
    async with AsyncExitStack() as stack:
        stood = await stack.enter_async_context(Standstills())
        held = PoolFlags(options.devices, options.memory_budget, demo=False)
        up = await stack.enter_async_context(Pool(held, options.pool_log))
        clients = [await stack.enter_async_context(AsyncClient(up.address)) for _ in range(4)]
        client = clients[0]
        for _ in range(options.promotions + 1):
            await fleet.register(client, MODEL, dataset.DEMO_WEIGHTS, options.image_size)
        await client.promote(f"{MODEL}@1", "stable")
        await client.load(ALIAS, replicas=options.replicas)
        async with Callers(clients[1:], jpeg(), ALIAS, options.callers) as callers:
            await asyncio.sleep(SETTLE_S)
            begin_s = time.time()
            await asyncio.sleep(options.quiet)
            first_s = time.time()
            moves = await orders(client, options)
            last_s = time.time()
            await asyncio.sleep(options.quiet)
            end_s = time.time()
        answers = callers.answers
        stood_s = sum(end - begin for begin, end in stood.spans) if stood.is_known else None
    quiet = [*windows(answers, begin_s, first_s), *windows(answers, last_s, end_s)]
    busy = windows(answers, first_s - WINDOW_S, last_s + WINDOW_S)
    rows = _throughput(quiet, busy, stood_s)
    return Result(
        scenario="alias_switch",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "throughput, answers a second in windows of ten seconds": tuple(rows),
            "orders": tuple(_orders(moves, answers)),
        },
        checks=tuple(checks(answers, moves, quiet, busy)),
    )


def _throughput(quiet: Sequence[float], busy: Sequence[float], stood_s: float | None) -> list[Row]:
    return [
        {
            "windows": name,
            "count": len(rates),
            "least": min(rates),
            "median": median(list(rates)),
            "most": max(rates),
            "machine_stood_still_s": stood_s,
        }
        for name, rates in (("quiet", quiet), ("with switches", busy))
    ]


def _orders(moves: Sequence[Move], answers: Sequence[Answer]) -> list[Row]:
    rows: list[Row] = []
    for kind in ("promote", "rollback"):
        took = [move.took_s for move in moves if move.kind == kind]
        if took:
            rows.append(
                {
                    "order": kind,
                    "count": len(took),
                    "median_s": median(took),
                    "fastest_s": min(took),
                    "slowest_s": max(took),
                }
            )
    timeline = lives(1, moves)
    times = [1e3 * (one.answered_s - one.sent_s) for one in answers if not one.reason]
    rows.append(
        {
            "order": "requests",
            "count": len(answers),
            "p50_ms": quantile(times, 0.5),
            "p99_ms": quantile(times, 0.99),
            "slowest_ms": max(times),
            "versions": len({one.version for one in answers if not one.reason}),
            "sent_after_a_move_to_the_one_before_ms": 1e3 * latest_s(answers, timeline),
        }
    )
    return rows


def checks(
    answers: Sequence[Answer], moves: Sequence[Move], quiet: Sequence[float], busy: Sequence[float]
) -> list[Check]:
    """What must hold."""
    failed = Counter(one.reason for one in answers if one.reason)
    wrong = out_of_time(answers, lives(1, moves))
    share = min(busy) / median(list(quiet))
    return [
        Check("no request failed", not failed, f"{len(answers)} requests, {dict(failed)}"),
        Check(
            "no answer of a version that was not live",
            not wrong,
            f"{len(wrong)} of {len(answers)}" + (f", the first {wrong[0]}" if wrong else ""),
        ),
        Check(
            f"each window of {WINDOW_S:g} s has {LEAST:.0%} of the quiet throughput",
            share >= LEAST,
            f"the least {share:.1%} of {median(list(quiet)):.1f} a second; quiet windows differ by "
            f"{min(quiet) / median(list(quiet)):.1%} to {max(quiet) / median(list(quiet)):.1%}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())

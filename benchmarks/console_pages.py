"""What open pages of the console cost the control plane: 100 of them, while models are asked.

    python -m benchmarks.console_pages

Turns with pages and without take each other's place. A page is what its scripts ask, with a
session: the stream of the fleet, and what some pages ask again and again (as a browser did).
Demanded: 100 pages of the fleet, and 100 of all kinds, cost less than 2 % of a core each.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import httpx
import psutil

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from yolopool.client.client import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

LIMIT = 0.02
MODEL, MODELS = "shapes", 20
# Whether a page follows the stream; and the paths that it asks, with how often.
Asks = tuple[bool, Mapping[str, float]]
FLEET: Asks = (True, {})
PAGES: Sequence[Asks] = (
    *[FLEET] * 4,
    (True, {"/v1/models": 60.0}),
    (True, {"/v1/models": 60.0}),
    (
        True,
        {
            f"/v1/models/{MODEL}": 20.0,
            f"/v1/aliases?name_prefix={MODEL}": 20.0,
            f"/v1/rollouts?name_prefix={MODEL}": 20.0,
            f"/v1/models/{MODEL}/explain": 20.0,
        },
    ),
    (False, {}),  # to try models: asks when pictures come
    (False, {"/console/findings": 10.0}),
    (False, {"/v1/alerts": 10.0, "/v1/alerts/silences": 10.0, "/v1/alerts/rules": 60.0}),
)


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.console_pages", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--pages", type=int, default=100, help="that are open")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="of a turn of each kind")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second meanwhile")
    return parser


@contextmanager
def asked(address: str, key: str, rate: float) -> Iterator[None]:
    """A model that is asked so often, so that what pages show changes."""
    ended = threading.Event()
    image = demo.find().images[0]

    def ask() -> None:
        with Client(address, key) as client:
            while not ended.wait(1 / rate):
                client.detect(image, model=MODEL)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def open_page(http: httpx.AsyncClient, asks: Asks) -> None:
    """Until cancelled."""
    follows, paths = asks
    async with asyncio.TaskGroup() as group:
        if follows:
            group.create_task(_follow(http))
        for path, every_s in paths.items():
            group.create_task(_ask(http, path, every_s))


async def _follow(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/console/stream", timeout=None) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_raw():
            pass
    raise RuntimeError("the stream ended")


async def _ask(http: httpx.AsyncClient, path: str, every_s: float) -> None:
    while True:
        (await http.get(path, timeout=30)).raise_for_status()
        await asyncio.sleep(every_s)


async def turn(
    http: httpx.AsyncClient, plane: psutil.Process, asks: Sequence[Asks], s: float
) -> float:
    """CPU of the control plane, in parts of a core, with these pages open."""
    tasks = []
    for page in asks:  # not all in one moment, as people open them
        tasks.append(asyncio.create_task(open_page(http, page)))
        await asyncio.sleep(2.0 / len(asks))
    await asyncio.sleep(1.0)
    before = plane.cpu_times()
    await asyncio.sleep(s)
    after = plane.cpu_times()
    failed = [task.exception() for task in tasks if task.done() and task.exception()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, f"a page failed: {failed[0]}"
    used_s: float = after.user - before.user + after.system - before.system
    return used_s / s


def run(options: argparse.Namespace) -> Result:
    machine, started_at = hardware.describe(), results.now()
    kinds: dict[str, Sequence[Asks]] = {
        "none": (),
        "fleet": [FLEET] * options.pages,
        "all kinds": list(islice(cycle(PAGES), options.pages)),
    }
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        pool_options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:4", auth=True)
        with LocalPool(pool_options, lambda _: None) as pool:
            with Client(pool.address, pool.api_key) as client:
                for number in range(MODELS):
                    name = MODEL if not number else f"line-{number}"
                    client.register(name, demo.find().models[demo.MAIN])
            (plane,) = [
                child for child in psutil.Process().children() if "control_plane" in child.cmdline()
            ]
            with asked(pool.address, pool.api_key, options.rate):
                costs = asyncio.run(measured(pool, plane, kinds, options))
    table: tuple[Row, ...] = tuple(
        {"pages": kind, "cpu_of_a_core": median(cost), "more": median(_more(cost, costs["none"]))}
        for kind, cost in costs.items()
    )
    return Result(
        scenario="console_pages",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={f"{options.pages} open pages": table},
        checks=tuple(
            Check(
                f"{options.pages} pages, {row['pages']}: less than {LIMIT:.0%} of a core",
                float(str(row["more"])) < LIMIT,
                f"{float(str(row['more'])):.2%}",
            )
            for row in table[1:]
        ),
    )


def _more(cost: Sequence[float], base: Sequence[float]) -> list[float]:
    return [one - without for one, without in zip(cost, base, strict=True)]


async def measured(
    pool: LocalPool,
    plane: psutil.Process,
    kinds: Mapping[str, Sequence[Asks]],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """CPU by the kind of pages, round by round."""
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{pool.http}", limits=limits) as http:
        # Browsers send the page's own origin with a form.
        origin = {"origin": f"http://{pool.http}"}
        signed = await http.post("/console/session", json={"key": pool.api_key}, headers=origin)
        signed.raise_for_status()
        for _ in range(options.rounds):
            for kind, asks in kinds.items():
                costs[kind].append(await turn(http, plane, asks, options.seconds))
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())

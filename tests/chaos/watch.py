"""Looks at every process of a pool while a scenario runs, and keeps what must never be seen.

Workers are asked themselves: a control plane may be dead, and its view is not the truth.
"""

import asyncio
import re
import ssl
import urllib.request
from collections import defaultdict
from pathlib import Path
from types import TracebackType

from tests.chaos.pool import Pool
from yolopool.client.fleet_records import ledger_of
from yolopool.errors import YolopoolError
from yolopool.v1 import worker_pb2

EVERY_S = 0.25
_RETRIES = re.compile(r"^yolopool_retries_total\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_ASK_S = 1.0

Token = tuple[int, int]


class Watch:
    """`async with Watch(pool) as watch`; read its findings after.

    `overruns`: ledgers above their budget. `stale`: workers whose highest token went down.
    `highest`: the highest token each worker has told (epoch, counter).
    """

    def __init__(self, pool: Pool) -> None:
        self.looks = 0
        self.overruns: list[str] = []
        self.stale: list[str] = []
        self.highest: dict[str, Token] = {}
        self._pool = pool
        self._tokens: dict[str, Token] = {}  # by incarnation
        self._retries: dict[int, list[float]] = defaultdict(list)  # by pid, first and last
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        ended = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]
        await self.look()

    @property
    def retried_inside(self) -> int:
        """Attempts that control planes sent to a second worker meanwhile, by their own counters.

        What one counted within its last moments before a SIGKILL is not known.
        """
        return int(sum(counts[-1] - counts[0] for counts in self._retries.values()))

    async def look(self) -> None:
        """Once at every process; one that does not answer is left out."""
        self.looks += 1
        pool = self._pool
        await asyncio.gather(*map(self._worker, pool.workers), *map(self._counters, pool.http))

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def _worker(self, name: str) -> None:
        try:
            async with asyncio.timeout(_ASK_S):
                told = await self._pool.workers[name].inventory()
        except (YolopoolError, TimeoutError):
            return
        self._check(name, told)

    def _check(self, name: str, told: worker_pb2.GetInventoryResponse) -> None:
        ledger = ledger_of(told.worker.ledger)
        if ledger.used_bytes > ledger.budget_bytes:
            self.overruns.append(f"{name}: {ledger.used_bytes} of {ledger.budget_bytes} bytes")
        token = (told.highest_token.epoch, told.highest_token.counter)
        before = self._tokens.get(told.worker.incarnation, (0, 0))
        if token < before:
            self.stale.append(f"{name}: {token} after {before}")
        self._tokens[told.worker.incarnation] = token
        self.highest[name] = token

    async def _counters(self, name: str) -> None:
        process = self._pool.processes[name]
        if not process.is_running:
            return
        try:
            text = await asyncio.to_thread(metrics_of, self._pool.http[name], self._pool.ground.ca)
        except OSError:
            return
        count = sum(map(float, _RETRIES.findall(text)))
        counts = self._retries[process.pids[-1]]
        # A process that was started meanwhile has counted from zero.
        counts[:] = [counts[0] if counts else (count if len(process.pids) == 1 else 0.0), count]


async def count_of(http: str, metric: str) -> float:
    """What a control plane counts under a name without labels."""
    text = await asyncio.to_thread(metrics_of, http)
    return float(re.findall(rf"^{metric} ([0-9.e+]+)$", text, re.MULTILINE)[0])


def metrics_of(http: str, ca: Path | None = None) -> str:
    """What a control plane's /metrics says; `ca`: the authority of its certificate. Blocks;
    raises OSError.
    """
    trusted = ssl.create_default_context(cafile=ca) if ca is not None else None
    with urllib.request.urlopen(f"{http}/metrics", timeout=_ASK_S, context=trusted) as answer:
        text: str = answer.read().decode()
    return text

"""What is looked after every second: who else uses the device, what did not come back, what cools.

The decisions are pure; `Upkeep` measures and hands them on.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from worker.backends.base import Backend, DeviceMemory
from worker.replicas.lifecycle import ReplicaState
from worker.replicas.replica import Replica
from worker.replicas.swapper import Swapper

log = structlog.get_logger()
TICK_S = 1.0
# Looks over which memory has to be too much all the time: a pass or a large image is not drift.
LOOKS = 10
# Looks in a row that fail until the device counts as lost.
MOST_FAILURES = 5
# A budget that moves by less than this part of it stays as it is.
_STEADY = 0.01


class DeviceLost(Exception):
    """The device answers nothing any more: only another process may have it again."""


def budget_bytes(configured: int, current: int, memory: DeviceMemory) -> int:
    """What models may have: the configured budget, less what others leave no room for."""
    possible = min(configured, memory.used_bytes + memory.available_bytes)
    small = abs(possible - current) < _STEADY * configured and possible != configured
    return current if small else possible


class LeakDetector:
    """Bytes in use beyond the ledger: the least of the last looks, so that only what stays counts.

    Measured memory above everything that the ledger promises is memory that did not come back.
    """

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks: deque[int] = deque(maxlen=looks)

    def look(self, measured_bytes: int, ledger_bytes: int) -> int | None:
        """Takes one more look; None until there were enough."""
        self._looks.append(max(0, measured_bytes - ledger_bytes))
        return min(self._looks) if len(self._looks) == self._looks.maxlen else None


def cooled(replicas: Sequence[Replica], now: float, idle_s: float) -> list[Replica]:
    """Which of those on the device have not run for `idle_s` and are to be warmed again."""
    if not idle_s:
        return []
    return [
        one
        for one in replicas
        if one.state is ReplicaState.HOT
        and not one.outstanding
        and now - max(one.last_pass, one.hot_since) >= idle_s
    ]


class DeviceMonitor:
    """`configured_bytes` is the budget of the settings; `recycle` is called with the reason, once,
    when more than `drift_limit_bytes` did not come back (0: never).
    """

    def __init__(
        self,
        backend: Backend,
        swapper: Swapper,
        held: Callable[[], Sequence[Replica]],
        rewarm_idle_s: float,
        drift_limit_bytes: int,
        recycle: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configured_bytes = 0
        self.drift_bytes = 0
        self._backend = backend
        self._swapper = swapper
        self._held = held
        self._rewarm_idle_s = rewarm_idle_s
        self._drift_limit_bytes = drift_limit_bytes
        self._recycle = recycle
        self._clock = clock
        self._drift = LeakDetector()
        self._recycling = self._reclaimed = False

    @property
    def foreign_bytes(self) -> int:
        """What the budget is below the configured one, since others use the device."""
        return max(0, self.configured_bytes - self._swapper.ledger.budget_bytes)

    async def run(self, tick_s: float = TICK_S) -> None:
        failed = 0
        while failed < MOST_FAILURES:
            await asyncio.sleep(tick_s)
            try:
                await self.look()
                failed = 0
            except Exception as error:  # what is looked after next second must not end here
                failed += 1
                log.error("upkeep failed", exc_info=error)
        raise DeviceLost(f"the device did not answer {failed} times")

    async def look(self) -> None:
        """One look at the device and at what is on it."""
        memory = self._backend.memory()
        self._budget(memory)
        await self._look_for_drift(memory)
        for one in cooled(self._held(), self._clock(), self._rewarm_idle_s):
            await self._swapper.warm_again(one)
        await self._swapper.warm_batch()

    def _budget(self, memory: DeviceMemory) -> None:
        current = self._swapper.ledger.budget_bytes
        wanted = budget_bytes(self.configured_bytes, current, memory)
        if wanted != current:
            log.warning(
                "budget changed: others use the device, or gave it back",
                budget_bytes=wanted,
                configured_bytes=self.configured_bytes,
                available_bytes=memory.available_bytes,
            )
            self._swapper.set_budget(wanted)

    async def _look_for_drift(self, memory: DeviceMemory) -> None:
        drift_bytes = self._drift.look(memory.used_bytes, self._swapper.ledger.used_bytes)
        if drift_bytes is None:
            return
        self.drift_bytes = drift_bytes
        over = self._drift_limit_bytes and self.drift_bytes > self._drift_limit_bytes
        if not over:
            self._reclaimed = False
        elif not self._reclaimed:
            # It may only be kept for the next pass: looked at anew once that was given back.
            self._reclaimed = True
            self._drift = LeakDetector()
            await self._swapper.reclaim()
        elif not self._recycling:
            self._recycling = True
            self._recycle(
                f"{self.drift_bytes} bytes did not come back, more than the "
                f"{self._drift_limit_bytes} of --drift-limit"
            )

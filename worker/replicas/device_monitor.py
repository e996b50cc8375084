"""Looks at the device every second: memory that others use, what is held beyond the ledger, and
replicas to warm again.

The decisions are pure; `DeviceMonitor` measures and carries them out.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from worker.backends.base import Backend, DeviceMemory
from worker.hardware.device_stand import DeviceObserver, DeviceStand
from worker.replicas.probing.probes import Probes, Upkeep
from worker.replicas.replica import Replica
from worker.replicas.swapper import Swapper
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()
TICK_S = 1.0
# Looks in a row that must all find too much memory in use: a pass or a large image is no leak.
LOOKS = 10
# Looks in a row that fail before the device counts as lost.
MAX_FAILURES = 5
# Figures of the device that are older than this are not known any more: its driver hangs.
STALE_S = 10.0
# The budget stays as it is for a change smaller than this fraction of it.
_STEADY = 0.01


class DeviceLost(Exception):
    """The device does not answer any more: only a new process can use it again."""


def budget_bytes(configured: int, current: int, memory: DeviceMemory) -> int:
    """The budget for models: the configured one, or less where others use the device's memory."""
    possible = min(configured, memory.used_bytes + memory.available_bytes)
    small = abs(possible - current) < _STEADY * configured and possible != configured
    return current if small else possible


def context_bytes(opened: int, held_bytes: int, current: int, configured: int) -> int:
    """What the process holds beside its models: the context as it was when the device was opened,
    and the bytes that are held beyond the ledger since.
    """
    possible = opened + held_bytes
    small = abs(possible - current) < _STEADY * configured
    return current if small else possible


class LeakDetector:
    """Finds memory that did not come back: what is in use above all that the ledger promises.

    The minimum of the last looks counts, so that only what stays in use is reported.
    """

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks: deque[int] = deque(maxlen=looks)

    def look(self, measured_bytes: int, ledger_bytes: int) -> int | None:
        """Adds a look; returns the leaked bytes, or None until there were enough looks."""
        self._looks.append(max(0, measured_bytes - ledger_bytes))
        return min(self._looks) if len(self._looks) == self._looks.maxlen else None


def cooled(replicas: Sequence[Replica], now: float, idle_s: float) -> list[Replica]:
    """The replicas on the device that have not run for `idle_s` and should be warmed again."""
    if not idle_s:
        return []
    return [
        replica
        for replica in replicas
        if replica.state is ReplicaState.HOT
        and not replica.outstanding
        and now - replica.used_s >= idle_s
    ]


class DeviceMonitor:
    """`configured_bytes` is the budget in the settings, `opened_bytes` the context when the device
    was opened. `recycle` is called with the reason, once, when more than `drift_limit_bytes` leaked
    (0: never).
    """

    def __init__(
        self,
        backend: Backend,
        swapper: Swapper,
        replicas: Callable[[], Sequence[Replica]],
        upkeep: Upkeep,
        drift_limit_bytes: int,
        recycle: Callable[[str], None],
        observer: DeviceObserver,
        clock: Callable[[], float],
    ) -> None:
        self.stand: DeviceStand | None = None  # as of the last look
        self.configured_bytes = self.opened_bytes = 0
        self.drift_bytes = 0
        self._backend = backend
        self._swapper = swapper
        self._replicas = replicas
        self._rewarm_idle_s = upkeep.rewarm_idle_s
        self._probes = Probes(swapper, upkeep, clock)
        self._drift_limit_bytes = drift_limit_bytes
        self._recycle = recycle
        self._observer = observer
        self._observing: threading.Thread | None = None
        self._observed_s = clock()  # when it was asked last
        self._clock = clock
        self._leaks = LeakDetector()
        self._recycling = self._reclaimed = self._made_room = False

    @property
    def foreign_bytes(self) -> int:
        """Bytes by which other users of the device lower the budget."""
        return max(0, self.configured_bytes - self._swapper.ledger.budget_bytes)

    async def run(self, tick_s: float = TICK_S) -> None:
        failed = 0
        while failed < MAX_FAILURES:
            await asyncio.sleep(tick_s)
            try:
                await self.look()
                failed = 0
            except Exception as error:  # the next look must not be lost with this one
                failed += 1
                log.error("a look at the device failed", exc_info=error)
        raise DeviceLost(f"the device did not answer {failed} times")

    async def look(self) -> None:
        """One look at the device and at what is on it."""
        memory = self._backend.memory()
        self._ask(memory)
        self._adjust_budget(memory)
        if self._has_verdict(memory):
            await self._judge_leak()
            await self._reserve_what_is_held()
        for replica in cooled(self._replicas(), self._clock(), self._rewarm_idle_s):
            if wrong := await self._swapper.warmup.warm_again(replica):
                await self._swapper.reload(replica, wrong)
        await self._probes.look(self._replicas())
        await self._swapper.warmup.warm_batch()

    def _ask(self, memory: DeviceMemory) -> None:
        """Asks for the figures of the device. Nobody waits for them: a driver that hangs must hold
        up neither other looks nor the end of the process.
        """
        if self._observing is None or not self._observing.is_alive():
            with suppress(RuntimeError):  # no more threads: the next look tries again
                self._observed_s = self._clock()
                thread = threading.Thread(
                    target=self._observe, args=(memory,), name="device figures", daemon=True
                )
                thread.start()
                self._observing = thread
        elif self._clock() - self._observed_s > STALE_S:
            self.stand = None

    def _observe(self, memory: DeviceMemory) -> None:
        self.stand = self._observer.look(memory.used_bytes, memory.available_bytes)

    def _adjust_budget(self, memory: DeviceMemory) -> None:
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

    def _has_verdict(self, memory: DeviceMemory) -> bool:
        """Notes a look; whether there were enough of them to say what is held beyond the ledger."""
        ledger = self._swapper.ledger
        reserved = ledger.context_bytes - self.opened_bytes if self._reserves else 0
        drift_bytes = self._leaks.look(memory.used_bytes, ledger.used_bytes - reserved)
        if drift_bytes is not None:
            self.drift_bytes = drift_bytes
        return drift_bytes is not None

    async def _judge_leak(self) -> None:
        over = self._drift_limit_bytes and self.drift_bytes > self._drift_limit_bytes
        if not over:
            self._reclaimed = False
        elif not self._reclaimed:
            # The backend may only keep it for the next pass. That is given back, then looked at
            # anew.
            self._reclaimed = True
            self._leaks = LeakDetector()
            await self._swapper.reclaim()
        elif not self._recycling:
            self._recycling = True
            self._recycle(
                f"{self.drift_bytes} bytes did not come back, more than the "
                f"{self._drift_limit_bytes} of --drift-limit"
            )

    @property
    def _reserves(self) -> bool:
        return self._backend.device_kind == "cpu" and self.opened_bytes > 0

    async def _reserve_what_is_held(self) -> None:
        """On a CPU the allocator, kernels and the server itself hold memory beyond what the ledger
        promises. It counts as context, so that the budget holds for the whole process.
        """
        ledger = self._swapper.ledger
        if not self._reserves:
            return
        context = context_bytes(
            self.opened_bytes, self.drift_bytes, ledger.context_bytes, self.configured_bytes
        )
        grown = context - ledger.context_bytes
        if grown > max(0, ledger.free_bytes) and not self._made_room:
            # Before a model must leave for it: what is free is given back, and looked at anew.
            self._made_room = True
            self._leaks = LeakDetector()
            await self._swapper.reclaim()
        elif grown:
            log.info("context changed", context_bytes=context, grown_bytes=grown)
            self._made_room = False
            self._swapper.set_context(context)

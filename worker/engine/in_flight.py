"""Batches that were given to the device and are not answered yet, and when the device is free.

Guarded by the engine's lock, but for `activity`, which the watchdog reads without it.
"""

from collections import deque
from contextlib import suppress

from worker.concurrency.stall_detector import DeviceActivity


class InFlight:
    """`tickets` were given to the device and have no answer yet."""

    def __init__(self) -> None:
        self.tickets = 0
        self._free_at = 0.0
        # What the device thread does now, and the passes that left it and are to be finished.
        self._current: DeviceActivity | None = None
        self._unfinished: deque[DeviceActivity] = deque()

    @property
    def unfinished(self) -> int:
        """Passes that left the device thread and are to be finished."""
        return len(self._unfinished)

    def activity(self) -> DeviceActivity | None:
        """What the device thread does now, or else the pass that is to be finished next. Needs no
        lock, so that nothing can hang the caller.
        """
        current = self._current
        if current is None:
            with suppress(IndexError):
                current = self._unfinished[0]
        return current

    def free_at(self, now: float) -> float:
        """When the device can begin the next batch."""
        return max(now, self._free_at) if self.tickets else now

    def busy_s(self, now: float) -> float:
        """How long the batches in flight still take."""
        # A pass that is overdue is expected to take as long again: a device that hangs is not idle.
        return abs(self._free_at - now) if self.tickets else 0.0

    def note_job(self, now: float) -> None:
        self._current = DeviceActivity("a load or another job of the device", now, None)

    def note_batch(
        self, version: str, tickets: int, now: float, begins: float, expected_s: float | None
    ) -> None:
        """Notes a batch that leaves the queue now; it `begins` behind what is on the device."""
        self.tickets += tickets
        self._free_at = begins + (expected_s or 0.0)
        self._current = DeviceActivity(_a_pass(version), now, expected_s)

    def note_idle(self) -> None:
        """Notes that the device thread has nothing to do."""
        self._current = None

    def pass_began(self, version: str, now: float) -> None:
        """Notes a pass that leaves the device thread and is to be finished."""
        self._unfinished.append(self._current or DeviceActivity(_a_pass(version), now, None))

    def pass_ended(self, tickets: int, now: float) -> None:
        """Notes the end of the oldest pass; it may be earlier than expected."""
        done = self._unfinished.popleft()
        self.tickets -= tickets
        self._free_at = min(self._free_at, now + self._left_s(done))

    def failed(self, tickets: int) -> None:
        """Notes tickets that were answered without a pass."""
        self.tickets -= tickets

    def _left_s(self, done: DeviceActivity) -> float:
        """The most that the other passes in flight are expected to take."""
        others = {
            id(activity): activity
            for activity in (*self._unfinished, self._current)
            if activity is not None and activity is not done
        }
        return sum(activity.expected_s or 0.0 for activity in others.values())


def _a_pass(version: str) -> str:
    return f"a pass of {version}"

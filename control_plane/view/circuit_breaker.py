"""A circuit breaker per worker process. Pure: times are monotonic seconds and arguments.

A worker that does not answer in time trips it, and routing avoids that worker. After PROBE_AFTER_S
it is half-open: one request may probe the worker. Any word of the worker resets it.
"""

from collections.abc import Collection
from dataclasses import dataclass

PROBE_AFTER_S = 1.0


@dataclass(slots=True)
class _Open:
    since_s: float
    probing: bool = False


class CircuitBreaker:
    """By incarnation: a new process of the same worker begins closed."""

    def __init__(self) -> None:
        self._tripped: dict[str, _Open] = {}

    def __len__(self) -> int:
        return len(self._tripped)

    def trip(self, incarnation: str, now: float) -> None:
        """The worker did not answer in time. Tripping again restarts the time."""
        self._tripped[incarnation] = _Open(now)

    def reset(self, incarnation: str) -> None:
        """The worker answered, refused or sent a heartbeat."""
        self._tripped.pop(incarnation, None)

    def open_for(self, now: float) -> Collection[str]:
        """The incarnations that get no request now."""
        if not self._tripped:
            return ()
        return {
            incarnation
            for incarnation, state in self._tripped.items()
            if state.probing or now - state.since_s < PROBE_AFTER_S
        }

    def sent(self, incarnation: str) -> None:
        """A request is on its way to the worker: the probe, if the breaker is tripped."""
        state = self._tripped.get(incarnation)
        if state is not None:
            state.probing = True

    def ended(self, incarnation: str) -> None:
        """The request ended without a word of the worker: its caller cancelled, for example."""
        state = self._tripped.get(incarnation)
        if state is not None:
            state.probing = False

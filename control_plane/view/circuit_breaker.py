"""Workers that did not answer in time: passed over until they are heard again, or were probed.

Pure: times are monotonic seconds and arguments. What a breaker calls half-open: once PROBE_AFTER_S
has passed one request may try such a worker, and no second one while that is out.
"""

from collections.abc import Collection
from dataclasses import dataclass

PROBE_AFTER_S = 1.0


@dataclass(slots=True)
class _Open:
    since_s: float
    probing: bool = False


class CircuitBreaker:
    """By incarnation: a new process of the same worker begins with a clean sheet."""

    def __init__(self) -> None:
        self._doubts: dict[str, _Open] = {}

    def __len__(self) -> int:
        return len(self._doubts)

    def trip(self, incarnation: str, now: float) -> None:
        """It did not answer in time; once more begins the time anew."""
        self._doubts[incarnation] = _Open(now)

    def reset(self, incarnation: str) -> None:
        """It spoke: an answer, a refusal or a heartbeat."""
        self._doubts.pop(incarnation, None)

    def open_for(self, now: float) -> Collection[str]:
        """Whom no request is to be sent to now."""
        if not self._doubts:
            return ()
        return {
            incarnation
            for incarnation, doubt in self._doubts.items()
            if doubt.probing or now - doubt.since_s < PROBE_AFTER_S
        }

    def sent(self, incarnation: str) -> None:
        """A request is on its way to it: the probe, if it is a suspect."""
        doubt = self._doubts.get(incarnation)
        if doubt is not None:
            doubt.probing = True

    def ended(self, incarnation: str) -> None:
        """That request is over without a word of the worker, as when its caller left."""
        doubt = self._doubts.get(incarnation)
        if doubt is not None:
            doubt.probing = False

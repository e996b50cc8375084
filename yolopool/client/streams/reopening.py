"""When a stream whose connection was lost is opened again, and when it is given up. Pure."""

from dataclasses import dataclass

# How long a pool that never answered is asked: a wrong address should not take long to be told.
FIRST_S = 3.0
# A connection that lived so long was a good one, though no frame may have been sent on it.
LIVED_S = 5.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 2.0


@dataclass(slots=True)
class Reopening:
    """`patience_s`: how long to go on without an answer. Times are seconds of one clock."""

    patience_s: float
    _opened_at: float = 0.0
    _lost_at: float | None = None
    _worked: bool = False
    _pause_s: float = MIN_PAUSE_S

    def opened(self, now: float) -> None:
        """The stream is opened, again or for the first time."""
        self._opened_at = now

    def answered(self) -> None:
        self._worked, self._lost_at, self._pause_s = True, None, MIN_PAUSE_S

    def pause_s(self, now: float) -> float | None:
        """The connection was lost: seconds to wait before the stream is opened again; None: it is
        given up.
        """
        if now - self._opened_at >= LIVED_S:
            self.answered()
        if self._lost_at is None:
            self._lost_at = now
        patience_s = self.patience_s if self._worked else min(FIRST_S, self.patience_s)
        if now - self._lost_at >= patience_s:
            return None
        pause_s, self._pause_s = self._pause_s, min(MAX_PAUSE_S, 2 * self._pause_s)
        return pause_s

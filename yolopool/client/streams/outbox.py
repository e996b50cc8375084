"""The frames of one stream on the client's side: which may be taken from the caller, which is sent
next, which is sent again on another connection.

Pure.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

F = TypeVar("F")

# A reader who waits for so long has taken all answers that were there.
SETTLED_S = 0.005


@dataclass(slots=True, eq=False)
class Outgoing(Generic[F]):
    """A frame with its number in the stream; `taken_at` is when it was taken from the caller. Once
    it is sent it has a `source`, the image to draw on, or an `error` of its own.
    """

    number: int
    frame: F
    taken_at: float
    place: int = 0  # among the frames sent on its connection, from 1
    source: Any = None
    error: Any = None


@dataclass(slots=True)
class Outbox(Generic[F]):
    """Each frame is answered once or, if only the newest counts, dropped once.

    `reader_waits_since`: from when on the caller waits for an answer; None: he does not. `ended`:
    the caller has no more. Times are seconds of one clock.
    """

    newest_only: bool
    window: int
    reader_waits_since: float | None = None
    ended: bool = False
    _waiting: deque[Outgoing[F]] = field(default_factory=deque)
    _sent: dict[int, Outgoing[F]] = field(default_factory=dict)
    _taken: int = 0
    _answered: int = 0
    # Of this connection: frames that were sent, and those that the server is known to have.
    _sent_here: int = 0
    _received: int = 0

    @property
    def may_take(self) -> bool:
        """Whether to take one more frame from the caller."""
        return self.newest_only or len(self._waiting) + len(self._sent) < self.window

    def take(self, frame: F, now: float) -> None:
        if self.newest_only:
            self._waiting.clear()
        self._waiting.append(Outgoing(self._taken, frame, now))
        self._taken += 1

    def next(self, now: float) -> Outgoing[F] | None:
        """The frame to send now, if there is one; it counts as sent.

        Where only the newest counts, a reader that is busy with an answer finds one more, and no
        heap of old ones, when he comes back. And no more than a window of frames is on the wire: on
        a slow one they would grow old.
        """
        if not self._waiting:
            return None
        if self.newest_only:
            on_the_wire = self._sent_here - self._received
            if on_the_wire >= self.window or (self._sent and not self._reader_took_all(now)):
                return None
        outgoing = self._waiting.popleft()
        self._sent[outgoing.number] = outgoing
        self._sent_here += 1
        outgoing.place = self._sent_here
        return outgoing

    def again_s(self, now: float) -> float | None:
        """Seconds after which to ask for the next frame again though nothing happens."""
        if not self.newest_only or not self._waiting or self.reader_waits_since is None:
            return None
        left_s = self.reader_waits_since + SETTLED_S - now
        return left_s if left_s > 0 else None

    def _reader_took_all(self, now: float) -> bool:
        return self.reader_waits_since is not None and now - self.reader_waits_since >= SETTLED_S

    @property
    def sent_all(self) -> bool:
        """Whether nothing more will be sent on this connection."""
        return self.ended and not self._waiting

    @property
    def done(self) -> bool:
        """Whether every frame was answered or dropped."""
        return self.sent_all and not self._sent

    def received(self, count: int, held: Collection[int]) -> None:
        """The server said how many frames it has read on this connection, and which of these it
        still has. It drops none unless only the newest counts.
        """
        self._received = count
        if self.newest_only:
            self._sent = {
                number: one
                for number, one in self._sent.items()
                if one.place > count or number in held
            }

    def answered(self, number: int) -> Outgoing[F] | None:
        """The frame that an answer is for; None if it was answered before."""
        outgoing = self._sent.pop(number, None)
        if outgoing is not None:
            self._answered += 1
        return outgoing

    def dropped(self, number: int) -> int:
        """How many of the frames before one that was just answered were dropped."""
        return number + 1 - self._answered if self.newest_only else 0

    def lost(self) -> None:
        """The connection was lost: frames without an answer are sent again, on the next. Where only
        the newest counts, that one is.
        """
        again = sorted(self._sent.values(), key=lambda one: one.number)
        if self.newest_only:
            again = again[-1:] if not self._waiting else []
        self._waiting.extendleft(reversed(again))
        self._sent.clear()
        self._sent_here = self._received = 0

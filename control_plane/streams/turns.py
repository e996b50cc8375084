"""Which of many streams starts its next frame, where all together may have only so many in flight.

Pure.
"""

from collections import Counter
from typing import Generic, TypeVar

S = TypeVar("S")


class Turns(Generic[S]):
    """A turn is one frame, from its start to its answer. The next turn goes to the stream with the
    fewest frames in flight, and among these to the one that asked first: so streams that always
    have a frame get equally many, and one alone gets all.

    A frame that does not start yet can still be replaced by a newer one, which in a worker's queue
    it can't.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[S] = Counter()
        self._asking: dict[S, None] = {}  # who asked first, first

    def __len__(self) -> int:
        """Streams that ask, or have a frame in flight."""
        return len(self._asking.keys() | self._in_flight.keys())

    @property
    def is_scarce(self) -> bool:
        """Whether a stream asks, and none is given: `next` was called since."""
        return bool(self._asking)

    def ask(self, stream: S) -> None:
        """Asks for one turn; asking again changes nothing."""
        self._asking.setdefault(stream)

    def withdraw(self, stream: S) -> None:
        self._asking.pop(stream, None)

    def next(self, limit: int) -> S | None:
        """Gives a turn to a stream that asks, while fewer than `limit` frames are in flight."""
        if not self._asking or self._in_flight.total() >= limit:
            return None
        stream = min(self._asking, key=self._in_flight.__getitem__)
        del self._asking[stream]
        self._in_flight[stream] += 1
        return stream

    def ended(self, stream: S) -> None:
        """A frame of the stream is no longer in flight."""
        self._in_flight[stream] -= 1
        if not self._in_flight[stream]:
            del self._in_flight[stream]
        if stream in self._asking:
            # Among those with as few it comes last, as if it asked now: else a stream that asks for
            # its next frame while one is in flight would go before those that ask when none is.
            del self._asking[stream]
            self._asking[stream] = None

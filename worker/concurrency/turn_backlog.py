"""Work that waits for a thread, of several sides that take turns: a backlog of one side delays
another by no more than what is in progress. Thread-safe.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class TurnBacklog(Generic[Item]):
    """Round robin between sides; of one side the oldest goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Whose turn it is, first. No side is empty.
        self._sides: dict[str, deque[Item]] = {}

    def put(self, side: str, item: Item) -> None:
        with self._lock:
            waiting = self._sides.get(side)
            if waiting is None:
                self._sides[side] = deque((item,))
            else:
                waiting.append(item)

    def take(self) -> Item:
        """The next. Raises IndexError where nothing waits."""
        with self._lock:
            if not self._sides:
                raise IndexError("nothing waits")
            side = next(iter(self._sides))
            waiting = self._sides[side]
            item = waiting.popleft()
            if not waiting:
                del self._sides[side]
            elif len(self._sides) > 1:
                del self._sides[side]
                self._sides[side] = waiting
            return item

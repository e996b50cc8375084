"""The frames of one stream, from when they are read until their answers were taken: which may be
read, which starts next, which is dropped, which answer comes next.

Pure.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Of the frames read ahead. A window of large images would be many times as much.
MAX_AHEAD_BYTES = 64 * 1024**2

F = TypeVar("F")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What the opening message asks for. `window` is at least 1."""

    newest_only: bool = False
    in_order: bool = True
    window: int = 8


@dataclass(slots=True, eq=False)
class OpenFrame(Generic[F, A]):
    """A frame that was read, its answer once there is one. `number` is its place among the frames
    that were read. `read_at` and `deadline` are seconds of one clock; until `again_at` a full queue
    has no place for it.
    """

    frame: F
    number: int
    size_bytes: int
    read_at: float
    deadline: float
    again_at: float = 0.0
    answer: A | None = None


@dataclass(slots=True)
class FrameWindow(Generic[F, A]):
    """Each frame that is read is answered once or, if only the newest counts, dropped once."""

    rules: StreamRules
    received: int = 0
    dropped: int = 0
    # In the order of reading: frames that wait for their start, and all that are not taken.
    waiting: deque[OpenFrame[F, A]] = field(default_factory=deque)
    unread: deque[OpenFrame[F, A]] = field(default_factory=deque)
    # Of the images that are held.
    ahead_bytes: int = 0
    _told: int = 0

    @property
    def may_read(self) -> bool:
        """Whether there is room for one more frame."""
        if self.rules.newest_only or not self.unread:
            return True
        return len(self.unread) < self.rules.window and self.ahead_bytes < MAX_AHEAD_BYTES

    def read(self, frame: F, size_bytes: int, now: float, deadline: float) -> None:
        """Adds a frame that was read; for one that waits, if only the newest counts."""
        self.received += 1
        if self.rules.newest_only:
            self._drop_waiting()
        entry = OpenFrame[F, A](frame, self.received, size_bytes, now, deadline)
        self.waiting.append(entry)
        self.unread.append(entry)
        self.ahead_bytes += size_bytes

    def refused(self, frame: F, answer: A, now: float) -> None:
        """A frame that there was no room for has its answer; where only the newest counts, it is
        dropped.
        """
        self.received += 1
        if self.rules.newest_only:
            self.dropped += 1
        else:
            self.unread.append(OpenFrame[F, A](frame, self.received, 0, now, now, answer=answer))

    def leave(self) -> None:
        """The stream is over: its images are needed no more."""
        self.ahead_bytes = 0
        for entry in self.unread:
            entry.size_bytes = 0

    def may_start(self, now: float) -> bool:
        """Whether a frame waits that may be started as soon as it is the stream's turn.

        If only the newest counts, the answer before must have been taken: a reader that falls
        behind gets few answers and not old ones.
        """
        if not self.waiting or self.waiting[0].again_at > now:
            return False
        return not self.rules.newest_only or len(self.unread) == 1

    def wakes_at(self, now: float) -> float | None:
        """When to look again though nothing happens: a frame may go on, or its time is over."""
        times = [one.deadline for one in self.waiting]
        if self.waiting and self.waiting[0].again_at > now:
            times.append(self.waiting[0].again_at)
        return min(times, default=None)

    def start(self) -> OpenFrame[F, A]:
        """The first frame that waits; it must be answered, or put back."""
        return self.waiting.popleft()

    def start_late(self, now: float) -> list[OpenFrame[F, A]]:
        """The frames that waited until their time was over. They take no turn: they will be refused
        at once.
        """
        late = [one for one in self.waiting if one.deadline <= now]
        if late:
            self.waiting = deque(one for one in self.waiting if one.deadline > now)
        return late

    def put_back(self, entry: OpenFrame[F, A], again_at: float) -> None:
        """A frame that a full queue refused waits again, in its place; it is dropped where only the
        newest counts and one waits.
        """
        entry.again_at = again_at
        if self.rules.newest_only and self.waiting:
            self._forget(entry)
            self.dropped += 1
        else:
            before = sum(one.number < entry.number for one in self.waiting)
            self.waiting.insert(before, entry)

    def answered(self, entry: OpenFrame[F, A], answer: A) -> None:
        """Its image is needed no more, however long the reader takes for the answer."""
        entry.answer = answer
        self.ahead_bytes -= entry.size_bytes
        entry.size_bytes = 0

    def next_answer(self) -> OpenFrame[F, A] | None:
        """The frame whose answer is to be sent next, if it is there; then it is to be `taken`."""
        among = list(self.unread)[:1] if self.rules.in_order else self.unread
        return next((one for one in among if one.answer is not None), None)

    def taken(self, entry: OpenFrame[F, A]) -> None:
        """The answer of a frame was taken by the caller's connection."""
        self._forget(entry)

    @property
    def owes_progress(self) -> bool:
        """Whether to say how many frames were read: a caller who may send no more than a window
        without an answer would stop, though what it sends is only dropped.
        """
        step = max(1, self.rules.window // 2)
        return self.rules.newest_only and self.received - self._told >= step

    def told(self) -> None:
        """`received` is being sent."""
        self._told = self.received

    def _drop_waiting(self) -> None:
        while self.waiting:
            self._forget(self.waiting.popleft())
            self.dropped += 1

    def _forget(self, entry: OpenFrame[F, A]) -> None:
        self.unread.remove(entry)
        self.ahead_bytes -= entry.size_bytes

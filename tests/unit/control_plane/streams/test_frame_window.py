"""The frames of a stream: by hand, and against every order of events."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.streams.frame_window import MAX_AHEAD_BYTES, FrameWindow, OpenFrame, StreamRules

Window = FrameWindow[int, str]
NEVER = 1e9


def window(**rules: object) -> Window:
    return FrameWindow(StreamRules(**rules))  # type: ignore[arg-type]


def read(one: Window, *frames: int, size: int = 1, deadline: float = NEVER) -> None:
    for frame in frames:
        assert one.may_read
        one.read(frame, size, 0.0, deadline)


def send(one: Window) -> list[int]:
    """Takes all answers that may be sent now."""
    sent = []
    while (entry := one.next_answer()) is not None:
        one.taken(entry)
        sent.append(entry.frame)
    return sent


def test_no_more_is_read_than_the_window_until_answers_are_taken() -> None:
    one = window(window=2)
    read(one, 1, 2)
    assert not one.may_read
    first, second = one.start(), one.start()
    one.answered(first, "a")
    one.answered(second, "b")
    assert not one.may_read  # the reader of the answers is behind
    assert send(one) == [1, 2]
    assert one.may_read


def test_a_window_of_large_images_is_bounded_by_bytes() -> None:
    one = window(window=8)
    read(one, 1, size=MAX_AHEAD_BYTES)
    assert not one.may_read
    one.answered(one.start(), "a")
    assert send(one) == [1]
    read(one, 2, size=2 * MAX_AHEAD_BYTES)  # one frame always may be read


def test_answers_go_in_the_order_of_the_frames() -> None:
    one = window(window=3)
    read(one, 1, 2, 3)
    entries = [one.start() for _ in range(3)]
    one.answered(entries[2], "c")
    one.answered(entries[1], "b")
    assert send(one) == []
    one.answered(entries[0], "a")
    assert send(one) == [1, 2, 3]


def test_or_as_they_come() -> None:
    one = window(window=3, in_order=False)
    read(one, 1, 2, 3)
    entries = [one.start() for _ in range(3)]
    one.answered(entries[1], "b")
    assert send(one) == [2]
    one.answered(entries[2], "c")
    one.answered(entries[0], "a")
    assert send(one) == [1, 3]


def test_the_newest_replaces_the_one_that_waits() -> None:
    one = window(newest_only=True)
    read(one, 1)
    on_its_way = one.start()
    read(one, 2, 3, 4)
    assert (one.dropped, one.received) == (2, 4)
    assert not one.may_start(0.0)
    one.answered(on_its_way, "a")
    assert not one.may_start(0.0)  # its answer was not taken: the reader is behind
    assert send(one) == [1]
    assert one.may_start(0.0)
    assert one.start().frame == 4


def test_a_frame_that_a_full_queue_refused_waits() -> None:
    one = window(window=4)
    read(one, 1, 2, deadline=5.0)
    one.put_back(one.start(), 0.5)
    assert not one.may_start(0.4)
    assert one.wakes_at(0.4) == 0.5
    assert one.may_start(0.5)
    assert one.start().frame == 1


def test_it_gives_way_to_a_newer_one() -> None:
    one = window(newest_only=True)
    read(one, 1)
    refused = one.start()
    read(one, 2)
    one.put_back(refused, 0.5)
    assert one.dropped == 1
    assert one.may_start(0.0)
    assert one.start().frame == 2


def test_frames_whose_time_is_over_start_at_once() -> None:
    one = window(window=4)
    read(one, 1, deadline=1.0)
    read(one, 2, deadline=2.0)
    assert one.wakes_at(0.0) == 1.0
    assert one.start_late(0.9) == []
    assert [entry.frame for entry in one.start_late(1.0)] == [1]
    assert [entry.frame for entry in one.waiting] == [2]


def test_progress_is_told_after_half_a_window() -> None:
    one = window(newest_only=True, window=4)
    owed = []
    for frame in range(1, 4):
        read(one, frame)
        owed.append(one.owes_progress)
        if one.owes_progress:
            one.told()
    assert owed == [False, True, False]
    other = window(window=4)
    read(other, 1, 2, 3, 4)
    assert not other.owes_progress  # there each frame gets an answer


class AnyOrder(RuleBasedStateMachine):
    """Frames are read, started, put back, answered and taken in any order that is allowed."""

    @initialize(newest_only=st.booleans(), in_order=st.booleans(), size=st.integers(1, 5))
    def open(self, newest_only: bool, in_order: bool, size: int) -> None:
        self.how = StreamRules(newest_only, in_order, size)
        self.one: Window = FrameWindow(self.how)
        self.count = 0
        self.flying: list[OpenFrame[int, str]] = []
        self.sent: list[int] = []

    @precondition(lambda self: self.one.may_read)
    @rule(large=st.booleans())
    def read(self, large: bool) -> None:
        self.one.read(self.count, MAX_AHEAD_BYTES // 2 if large else 1, 0.0, NEVER)
        self.count += 1

    @precondition(lambda self: self.one.may_start(0.0))
    @rule()
    def start(self) -> None:
        newest = self.one.waiting[-1]
        entry = self.one.start()
        if self.how.newest_only:
            assert entry is newest
        self.flying.append(entry)

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 9))
    def answer(self, pick: int) -> None:
        entry = self.flying.pop(pick % len(self.flying))
        self.one.answered(entry, str(entry.frame))

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 9))
    def refuse(self, pick: int) -> None:
        self.one.put_back(self.flying.pop(pick % len(self.flying)), 0.0)

    @precondition(lambda self: self.one.next_answer() is not None)
    @rule()
    def take(self) -> None:
        entry = self.one.next_answer()
        assert entry is not None
        assert entry.answer == str(entry.frame)
        self.one.taken(entry)
        self.sent.append(entry.frame)

    @invariant()
    def little_is_held(self) -> None:
        held = 2 if self.how.newest_only else self.how.window
        assert len(self.one.unread) <= held
        # The frame that passed the bound was let in below it.
        assert sum(entry.size_bytes for entry in self.one.unread) <= 1.5 * MAX_AHEAD_BYTES
        assert len(self.flying) <= (1 if self.how.newest_only else held)

    @invariant()
    def nothing_is_lost_or_answered_twice(self) -> None:
        assert len(set(self.sent)) == len(self.sent)
        assert self.one.received == self.count
        assert len(self.sent) + self.one.dropped + len(self.one.unread) == self.count
        if not self.how.newest_only:
            assert self.one.dropped == 0
        if self.how.in_order or self.how.newest_only:
            assert self.sent == sorted(self.sent)

    def teardown(self) -> None:
        """Whatever happened, it comes to an end, and the newest frame has an answer."""
        if not hasattr(self, "one"):
            return
        steps: list[tuple[Callable[[], bool], Callable[[], None]]] = [
            (lambda: self.one.may_start(0.0), self.start),
            (lambda: bool(self.flying), lambda: self.answer(0)),
            (lambda: self.one.next_answer() is not None, self.take),
        ]
        while any(may() for may, _ in steps):
            next(act for may, act in steps if may())()
        assert not self.one.unread
        assert self.count == 0 or max(self.sent, default=-1) == self.count - 1


TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.sampled_from(["read", "tell"]), max_size=60), st.integers(1, 9))
def test_a_caller_with_a_window_of_credit_never_stops(events: list[str], size: int) -> None:
    """A caller that sends while fewer than `window` frames are not known to be received."""
    one, known = window(newest_only=True, window=size), 0
    for event in events:
        if event == "read" and one.received - known < size:
            read(one, one.received)
        elif event == "tell" and one.owes_progress:
            one.told()
            known = one.received
    assert one.received - known < size or one.owes_progress

"""Turns: streams that always have a frame get equally many, and one alone gets all."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from control_plane.streams.turns import Turns


def simulate(
    demands: list[int], limit: int, frames: int, order: list[int] | None = None
) -> Counter[int]:
    """Streams that always have a frame, with at most `demands[n]` in flight each, before a device
    that answers one after the other; answers how many frames of each were answered.
    """
    turns, queue, answered = Turns[int](), deque[int](), Counter[int]()
    flying = Counter[int]()

    def go_on() -> None:
        for stream, most in enumerate(demands):
            if flying[stream] < most:
                turns.ask(stream)
        while (chosen := turns.next(limit)) is not None:
            stream = chosen
            queue.append(stream)
            flying[stream] += 1
            assert len(queue) <= limit
            if flying[stream] < demands[stream]:
                turns.ask(stream)

    for number in range(frames):
        go_on()
        at = order[number % len(order)] % len(queue) if order else 0
        stream = queue[at]
        del queue[at]
        flying[stream] -= 1
        answered[stream] += 1
        turns.ended(stream)
    return answered


def test_one_alone_gets_all_that_may_be_in_flight() -> None:
    turns = Turns[str]()
    begun = 0
    turns.ask("a")
    while turns.next(4) is not None:
        begun += 1
        turns.ask("a")
    assert begun == 4


def test_a_stream_that_left_gets_no_turn() -> None:
    turns = Turns[str]()
    turns.ask("a")
    turns.ask("b")
    turns.withdraw("a")
    assert turns.next(4) == "b"
    assert turns.next(4) is None
    turns.ended("b")
    assert len(turns) == 0


@given(
    streams=st.integers(1, 12),
    limit=st.integers(1, 12),
    order=st.lists(st.integers(0, 11), min_size=1, max_size=20),
)
def test_equal_streams_get_equal_shares(streams: int, limit: int, order: list[int]) -> None:
    """One frame of each in flight, as of live video; in order, as a device that is busy answers."""
    answered = simulate([1] * streams, limit, 40 * streams)
    assert max(answered.values()) - min(answered[one] for one in range(streams)) <= 1
    # In whatever order a device answers what is in flight: one at a time, it is the turns' order.
    assert simulate([1] * streams, 1, 40 * streams, order) == answered


@given(deep=st.integers(2, 64), live=st.integers(1, 8))
def test_a_deep_window_takes_no_more_turns_where_turns_are_scarce(deep: int, live: int) -> None:
    answered = simulate([deep] + [1] * live, live, 60 * (live + 1))
    assert max(answered.values()) - min(answered[one] for one in range(live + 1)) <= 2

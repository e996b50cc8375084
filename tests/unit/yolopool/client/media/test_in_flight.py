"""Answers come in order, calls are bounded, and one that fails ends no other: on both clients."""

import asyncio
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from yolopool.client.calls import Call
from yolopool.client.detections import Detections
from yolopool.client.media.in_flight import (
    Questions,
    check_window,
    in_order,
    in_order_async,
    pause_s,
)
from yolopool.errors import (
    ImageNotDecodable,
    InvalidOption,
    QueueFull,
    ResourceExhausted,
    VideoNotReadable,
)


def found(number: int) -> Detections:
    none = np.zeros(0, np.float32)
    return Detections(none.reshape(0, 4), none, np.zeros(0, np.int64), (), model=str(number))


@dataclass
class Pool:
    """Answers a call by its number; `refusals` says how often one is refused first."""

    refusals: dict[int, int] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    most: int = 0
    cancelled: list[int] = field(default_factory=list)
    # Calls that end when their function is called.
    late: dict[int, Callable[[], None]] = field(default_factory=dict)

    def start(self, call: Call[Detections]) -> "Pending":
        number: int = call.request
        self.sent.append(number)
        self.open.add(number)
        self.most = max(self.most, len(self.open))
        return Pending(self, number)

    async def send(self, call: Call[Detections]) -> Detections:
        pending = self.start(call)
        # The first of a window ends last.
        await asyncio.sleep(0.002 if pending.number % 3 == 0 else 0)
        return pending.result()


@dataclass
class Pending:
    pool: Pool
    number: int

    def result(self) -> Detections:
        self.pool.open.discard(self.number)
        if self.pool.refusals.get(self.number, 0):
            self.pool.refusals[self.number] -= 1
            raise QueueFull("full", retry_after_s=0.001)
        if self.number % 10 == 7:
            raise ImageNotDecodable("no image")
        return found(self.number)

    def cancel(self) -> None:
        self.pool.cancelled.append(self.number)

    def on_done(self, told: Callable[[], None]) -> None:
        if self.number in self.pool.late:
            self.pool.late[self.number] = told
        else:
            self.pool.open.discard(self.number)
            told()


def questions(items: Generator[int, None, None], timeout_s: float = 5.0) -> Questions[int]:
    def ask(number: int) -> Call[Detections]:
        if number % 10 == 5:
            raise FileNotFoundError(2, "none", str(number))
        return Call("detection", "Detect", number, timeout_s, lambda reply: reply)

    return Questions(items, ask)


def numbers(count: int, taken: list[int] | None = None) -> Generator[int, None, None]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


Both = Callable[..., list[tuple[int, Any]]]


@pytest.fixture(params=["blocking", "asyncio"])
def both(request: pytest.FixtureRequest) -> Both:
    def blocking(asked: Questions[int], pool: Pool, window: int) -> list[tuple[int, Any]]:
        return list(in_order(asked, pool.start, window))

    def inside(asked: Questions[int], pool: Pool, window: int) -> list[tuple[int, Any]]:
        async def run() -> list[tuple[int, Any]]:
            return [one async for one in in_order_async(asked, pool.send, window)]

        return asyncio.run(run())

    return blocking if request.param == "blocking" else inside


@pytest.mark.parametrize("window", [1, 3, 50])
def test_all_are_answered_in_order(both: Both, window: int) -> None:
    pool = Pool()
    answers = both(questions(numbers(20)), pool, window)
    assert [item for item, _ in answers] == list(range(20))
    kinds = [type(told) for _, told in answers]
    assert kinds[4:9] == [Detections, FileNotFoundError, Detections, ImageNotDecodable, Detections]
    assert [told.model for _, told in answers if isinstance(told, Detections)] == [
        str(number) for number in range(20) if number % 10 not in (5, 7)
    ]
    assert pool.most <= window


def test_one_that_is_late_holds_up_no_call_and_not_too_much() -> None:
    taken: list[int] = []
    pool = Pool(late={0: lambda: None})
    answers = in_order(questions(numbers(1000, taken)), pool.start, 4)
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(next(answers)[0]), daemon=True)
    waiting.start()
    # Those behind it end and others are sent, until twice the window is under way.
    while len(pool.sent) < 7:
        waiting.join(0.01)
    waiting.join(0.1)
    assert (taken, found) == (list(range(8)), [])
    pool.late.pop(0)()
    waiting.join(10)
    assert found == [0]
    assert [next(answers)[0] for _ in range(3)] == [1, 2, 3]


def test_a_refusal_for_want_of_room_is_asked_again(both: Both) -> None:
    pool = Pool(refusals={2: 3})
    answers = both(questions(numbers(5)), pool, 2)
    assert [told.model for _, told in answers] == ["0", "1", "2", "3", "4"]
    assert pool.sent.count(2) == 4


def test_until_its_deadline(both: Both) -> None:
    pool = Pool(refusals={1: 10**9})
    answers = both(questions(numbers(3), timeout_s=0.02), pool, 2)
    assert [type(told) for _, told in answers] == [Detections, QueueFull, Detections]


def test_an_error_of_the_source_comes_behind_its_answers(both: Both) -> None:
    def breaking() -> Generator[int, None, None]:
        yield from range(3)
        raise VideoNotReadable("lost")

    answers = in_order(questions(breaking()), Pool().start, 8)
    assert [next(answers)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(VideoNotReadable, match="lost"):
        next(answers)
    with pytest.raises(VideoNotReadable, match="lost"):
        both(questions(breaking()), Pool(), 8)


def test_who_leaves_cancels_what_is_in_flight() -> None:
    pool = Pool()
    answers = in_order(questions(numbers(100)), pool.start, 4)
    next(answers)
    answers.close()
    assert pool.cancelled == pool.sent[1:]
    assert 1 <= len(pool.cancelled) <= 8


def test_who_leaves_asyncio_cancels_too() -> None:
    async def run() -> set[int]:
        pool = Pool()
        answers = in_order_async(questions(numbers(100)), pool.send, 4)
        await anext(answers)
        await answers.aclose()
        return pool.open

    before = asyncio.run(run())
    assert len(before) <= 8


def test_live_items_are_not_read_ahead() -> None:
    taken: list[int] = []
    answers = in_order(questions(numbers(10, taken)), Pool().start, 1, ahead=False)
    assert [next(answers)[0], len(taken), next(answers)[0], len(taken)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("error", "left_s", "wait"),
    [
        (QueueFull("full", retry_after_s=0.5), 1.0, 0.5),
        (QueueFull("full", retry_after_s=0.5), 0.4, None),
        (QueueFull("full"), 1.0, 0.1),
        (QueueFull("full", retry_after_s=0.0), 1.0, 0.01),
    ],
)
def test_pauses(error: ResourceExhausted, left_s: float, wait: float | None) -> None:
    assert pause_s(error, left_s) == wait


@pytest.mark.parametrize("window", [0, -1, 10**6])
def test_windows_that_are_none(window: int) -> None:
    with pytest.raises(InvalidOption, match="calls in flight"):
        check_window(window)

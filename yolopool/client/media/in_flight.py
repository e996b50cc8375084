"""Asks many questions with a bounded number of calls in flight, and answers them in order.

The shells of both clients; a refusal for want of room is asked again until its deadline.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from yolopool.client.calls import Call
from yolopool.client.detections import Detections
from yolopool.client.media.outcomes import Failure
from yolopool.errors import InvalidOption, ResourceExhausted, YolopoolError

Item = TypeVar("Item")
Told = Detections | Failure
MAX_WINDOW = 1024
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Question(Generic[Item]):
    """What is asked about an item: a call, or why nothing can be asked."""

    item: Item
    call: Call[Detections] | Failure


class Questions(Generic[Item]):
    """Questions about items, made one by one when there is room for a call.

    The next item may wait for a file or a camera: `wake` ends that wait, `release` closes it.
    """

    def __init__(
        self,
        items: Generator[Item, None, None],
        ask: Callable[[Item], Call[Detections]],
        wake: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._items = items
        self._ask = ask
        self._wake = wake
        self._release = release
        self._lock = threading.Lock()
        self._is_closed = False

    def next(self) -> Question[Item] | None:
        """None: there are no more. Raises what reading the source raises."""
        with self._lock:
            item = None if self._is_closed else next(self._items, None)
        if item is None:
            return None
        try:
            return Question(item, self._ask(item))
        except (YolopoolError, OSError) as error:
            return Question(item, error)

    def close(self) -> None:
        """Ends the wait of another thread for an item, and releases the source. Repeat: nothing."""
        self._is_closed = True
        self._wake()
        with self._lock:
            self._items.close()
            self._release()


class Pending(Protocol):
    """A call in flight."""

    def result(self) -> Detections: ...
    def cancel(self) -> object: ...
    def on_done(self, told: Callable[[], None]) -> None:
        """Calls it once the result is there, from any thread."""


Start = Callable[[Call[Detections]], Pending]
Send = Callable[[Call[Detections]], Coroutine[Any, Any, Detections]]


def check_window(window: int) -> int:
    """Raises InvalidOption for a number of calls that is none."""
    if not 1 <= window <= MAX_WINDOW:
        raise InvalidOption(f"window is {window}: give 1 to {MAX_WINDOW} calls in flight")
    return window


def pause_s(error: ResourceExhausted, left_s: float) -> float | None:
    """How long to wait before a refused call is sent again; None: it would be too late."""
    wait_s = _PAUSE_S if error.retry_after_s is None else max(error.retry_after_s, _PAUSE_S / 10)
    return wait_s if error.retryable and wait_s < left_s else None


def in_order(
    questions: Questions[Item], start: Start, window: int, *, ahead: bool = True
) -> Generator[tuple[Item, Told], None, None]:
    """Each item with its answer; leaving the iteration cancels what is in flight.

    `ahead`: calls are sent before an answer is handed out, and while one that is late holds up
    those behind it, which may wait for an item. An error of the source is raised behind the
    answers for what it gave.
    """
    source = _Source(questions)
    flights = _Flights(source, start, window, ahead)
    try:
        while flights.fill():
            item, told = flights.first()
            if ahead:
                flights.fill()
            yield item, told
    finally:
        questions.close()
        flights.cancel()
    source.check()


@dataclass(slots=True)
class _Flight(Generic[Item]):
    """A question under way; `until` is its deadline by the monotonic clock."""

    question: Question[Item]
    pending: Pending | None = None
    until: float = 0.0
    is_done: bool = True


class _Flights(Generic[Item]):
    """Calls in flight, and answers that wait for those before them."""

    def __init__(self, source: "_Source[Item]", start: Start, window: int, ahead: bool) -> None:
        self._source, self._start, self._window = source, start, window
        self._ahead = ahead
        self._most = _held(window, ahead)
        self._flying = deque[_Flight[Item]]()
        self._ended = queue.SimpleQueue[None]()
        self._open = 0

    def fill(self) -> bool:
        """Sends calls while there is room; whether there is anything to wait for."""
        while not self._ended.empty():
            self._landed()
        while self._open < self._window and len(self._flying) < self._most:
            question = self._source.next()
            if question is None:
                break
            self._flying.append(self._sent(question))
        return bool(self._flying)

    def first(self) -> tuple[Item, Told]:
        """The first item and its answer, once it is there."""
        flight = self._flying[0]
        while not flight.is_done:
            self._landed()
            if self._ahead:
                self.fill()
        told = _settled(flight, self._start)
        return self._flying.popleft().question.item, told

    def cancel(self) -> None:
        for flight in self._flying:
            if flight.pending is not None:
                flight.pending.cancel()

    def _sent(self, question: Question[Item]) -> _Flight[Item]:
        flight = _Flight(question)
        if isinstance(question.call, Call):
            flight.until = time.monotonic() + question.call.timeout_s
            flight.is_done = False
            flight.pending = self._start(question.call)
            self._open += 1

            def done() -> None:
                flight.is_done = True
                self._ended.put(None)

            flight.pending.on_done(done)
        return flight

    def _landed(self) -> None:
        self._ended.get()
        self._open -= 1


def _held(window: int, ahead: bool) -> int:
    """How many questions may be under way or wait for an answer before them."""
    return 2 * window if ahead else window


class _Source(Generic[Item]):
    """The questions until they end or fail."""

    def __init__(self, questions: Questions[Item]) -> None:
        self._questions = questions
        self._failure: Exception | None = None
        self.has_ended = False

    def next(self) -> Question[Item] | None:
        question = None
        if self.has_ended:
            return None
        try:
            question = self._questions.next()
        except Exception as error:  # told behind the answers that are under way
            self._failure = error
        self.has_ended = question is None
        return question

    def check(self) -> None:
        """Raises the error that ended the source, if one did."""
        if self._failure is not None:
            raise self._failure


def _settled(flight: _Flight[Item], start: Start) -> Told:
    call = flight.question.call
    if not isinstance(call, Call):
        return call
    while True:
        assert flight.pending is not None, "a call was started"
        try:
            return flight.pending.result()
        except ResourceExhausted as error:
            wait_s = pause_s(error, flight.until - time.monotonic())
            if wait_s is None:
                return error
            time.sleep(wait_s)
            flight.pending = start(call)
        except (YolopoolError, OSError) as error:
            return error


async def in_order_async(
    questions: Questions[Item], send: Send, window: int, *, ahead: bool = True
) -> AsyncGenerator[tuple[Item, Told], None]:
    """As `in_order`; questions are made on a thread."""
    source = _Source(questions)
    flights = _AsyncFlights(source, questions, send, window, ahead)
    try:
        while await flights.fill():
            item, told = await flights.first()
            if ahead:
                await flights.fill()
            yield item, told
    finally:
        questions.close()
        await flights.cancel()
    source.check()


class _AsyncFlights(Generic[Item]):
    """As `_Flights`, of tasks."""

    def __init__(
        self,
        source: _Source[Item],
        questions: Questions[Item],
        send: Send,
        window: int,
        ahead: bool,
    ) -> None:
        self._source, self._questions, self._send = source, questions, send
        self._window, self._most, self._ahead = window, _held(window, ahead), ahead
        self._flying = deque[tuple[Item, asyncio.Task[Told]]]()

    def _open(self) -> list[asyncio.Task[Told]]:
        return [task for _, task in self._flying if not task.done()]

    async def fill(self) -> bool:
        while len(self._flying) < self._most and len(self._open()) < self._window:
            question = await _on_thread(self._source, self._questions)
            if question is None:
                break
            task = asyncio.create_task(_told(question, self._send))
            self._flying.append((question.item, task))
        return bool(self._flying)

    async def first(self) -> tuple[Item, Told]:
        item, task = self._flying[0]
        while not task.done():
            await asyncio.wait(self._open(), return_when=asyncio.FIRST_COMPLETED)
            if self._ahead:
                await self.fill()
        self._flying.popleft()
        return item, task.result()

    async def cancel(self) -> None:
        for _, task in self._flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._flying), return_exceptions=True)


async def _on_thread(source: _Source[Item], questions: Questions[Item]) -> Question[Item] | None:
    """The next question; a wait that is cancelled ends with its thread."""
    if source.has_ended:
        return None
    work = asyncio.create_task(asyncio.to_thread(source.next))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.to_thread(questions.close)
        with suppress(Exception):
            await work
        raise


async def _told(question: Question[Any], send: Send) -> Told:
    call = question.call
    if not isinstance(call, Call):
        return call
    until = time.monotonic() + call.timeout_s
    while True:
        try:
            return await send(call)
        except ResourceExhausted as error:
            wait_s = pause_s(error, until - time.monotonic())
            if wait_s is None:
                return error
            await asyncio.sleep(wait_s)
        except (YolopoolError, OSError) as error:
            return error

"""An asyncio loop whose time leaps to the next timer: what the shells await takes no real time.

Work on a device or a disk is run at once and says what it takes (`spend`); its answers come, and
its thread is free again, only when that has passed.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")
# Times are seconds since the beginning, so that floats keep nanoseconds apart for months.
RESOLUTION_S = 1e-9
# Until the event loop of a busy process has the interpreter: its thread goes on meanwhile. Assumed;
# the real run of ten models on a simulated device agrees with it.
REACTION_S = 0.002


class _NoTime(selectors.SelectSelector):
    """Nothing is ever ready: waiting moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen: somebody awaits what nobody does")
        self.now += max(0.0, timeout)
        return []


class NumberedFuture(asyncio.Future[Any]):
    """Futures are kept in sets: by number, the order in them is the same in every run."""

    made = 0

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        NumberedFuture.made += 1
        self._number = NumberedFuture.made

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """One thread, no input or output."""

    def __init__(self) -> None:
        self._clock = _NoTime()
        super().__init__(self._clock)
        self._clock_resolution = RESOLUTION_S
        self._spent_s = 0.0
        self._is_at_work = False

    def time(self) -> float:
        return self._clock.now

    def now(self) -> float:
        """The time as work under way sees it: what it has taken so far counts."""
        return self._clock.now + self._spent_s

    def spend(self, seconds: float) -> None:
        """Said by work under way: it takes so long."""
        self._spent_s += seconds

    def took(self, work: Callable[[], object]) -> float:
        """Runs work that may `spend`; answers the seconds it takes."""
        before = self._spent_s, self._is_at_work
        self._spent_s, self._is_at_work = 0.0, True
        try:
            work()
            return self._spent_s
        finally:
            self._spent_s, self._is_at_work = before

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self)

    def call_soon_threadsafe(  # type: ignore[override]  # as loosely typed as it is used
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """From work under way: once that is done, and its loop has come round to it."""
        if self._is_at_work:
            after_s = self._spent_s + REACTION_S
            return self.call_later(after_s, callback, *args, context=context)
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # as above
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """On a thread of its own: as many at once as asked for, each as fast as alone."""
        future = self.create_future()

        def run() -> None:
            try:
                answer = func(*args)
            except BaseException as error:
                self.call_soon_threadsafe(_fail, future, error)
            else:
                self.call_soon_threadsafe(_settle, future, answer)

        self.took(run)
        return future


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Answer]]) -> Answer:
    """Runs a coroutine on a clock of its own, from time 0, and cancels what it left."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()

"""Wakes the tasks that wait for a change of one subject, and no others."""

import asyncio
from collections.abc import Callable, Hashable
from typing import TypeVar

Answer = TypeVar("Answer")
ANY = "any"  # the subject for a change of any kind


class Waiters:
    """Futures by subject. On one event loop no change is missed between a check and a wait."""

    def __init__(self) -> None:
        self.changes = 0  # how often ANY was woken: a task that was busy sees that it missed one
        self._futures: dict[Hashable, set[asyncio.Future[None]]] = {}

    def wake(self, *subjects: Hashable) -> None:
        """Wakes the tasks that wait for one of these subjects, in this order."""
        self.changes += ANY in subjects
        for subject in subjects:
            for future in self._futures.pop(subject, ()):
                if not future.done():
                    future.set_result(None)

    def wake_all(self) -> None:
        self.wake(*[subject for subject in self._futures if subject != ANY], ANY)

    async def until(
        self, subject: Hashable, ready: Callable[[], Answer | None], timeout_s: float | None
    ) -> Answer | None:
        """The first answer of `ready` that is not None; None after the timeout."""
        try:
            async with asyncio.timeout(None if timeout_s is None else max(0.0, timeout_s)):
                while (answer := ready()) is None:
                    await self._next(subject)
                return answer
        except TimeoutError:
            return ready()

    async def after(self, seen: int, timeout_s: float) -> None:
        """Returns once something changed since `changes` was `seen`, or after the timeout."""
        await self.until(ANY, lambda: True if self.changes != seen else None, timeout_s)

    async def _next(self, subject: Hashable) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(subject, set())
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting and self._futures.get(subject) is waiting:
                del self._futures[subject]

"""Threads that run calls, with as little as possible between two of them: who hands something on
to another thread keeps it waiting until it lets go of the interpreter lock.
"""

import queue
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class ThreadPool:
    """So many threads that run calls, oldest first, until they are ended."""

    def __init__(self, name: str, threads: int) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def __call__(self, run: Callable[[], None]) -> None:
        self._calls.put(run)

    def end(self) -> None:
        """Once what was given is done."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, limit_s: float | None = None) -> None:
        """Waits so long at most for each."""
        for thread in self._threads:
            thread.join(limit_s)

    def _loop(self) -> None:
        while (run := self._calls.get()) is not None:
            try:
                run()
            except Exception as error:
                log.error("a call failed that answers its own errors: a bug", exc_info=error)
            # Else the last images and answers would live until the next ones come.
            del run

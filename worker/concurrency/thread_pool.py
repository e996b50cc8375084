"""Threads that run calls with little overhead in between. A caller that wakes a thread still holds
the interpreter lock, so the thread waits for it.
"""

import queue
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class ThreadPool:
    """Runs calls on a fixed number of threads, oldest first, until `end`."""

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
        """Ends the threads after the calls that are queued."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, limit_s: float | None = None) -> None:
        """Waits for the threads, at most so long for each."""
        for thread in self._threads:
            thread.join(limit_s)

    def _loop(self) -> None:
        while (run := self._calls.get()) is not None:
            try:
                run()
            except Exception as error:
                log.error(
                    "a call raised an error it should have handled: this is a bug", exc_info=error
                )
            # Otherwise the last images and results would live until the next call.
            del run

"""Tasks that are being cancelled: a time limit inside of one, the end of all, and a stop of many
steps that ends in time whatever they wait for.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

log = structlog.get_logger()

CANCEL_AGAIN_S = 0.2
CANCELLED_WITHIN_S = 5.0


async def ends_within(waiting: Coroutine[Any, Any, object], limit_s: float) -> bool:
    """Whether it ends within the limit, after which it is cancelled. Raises what it raises.

    In a task that is being cancelled, `asyncio.timeout` of Python before 3.11.3 raises
    CancelledError in place of TimeoutError.
    """
    task = asyncio.ensure_future(waiting)
    try:
        done, _ = await asyncio.wait((task,), timeout=limit_s)
        for ended in done:
            ended.result()
        return bool(done)
    finally:
        task.cancel()


async def ended(
    tasks: Sequence[asyncio.Task[Any]], limit_s: float = CANCELLED_WITHIN_S
) -> list[str]:
    """Cancels tasks until they end, at most for `limit_s`. Returns the names of those that did not:
    while it connects, the store's library may mistake a cancellation for a failed connection.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    while running := [task for task in tasks if not task.done()]:
        left_s = until - loop.time()
        if left_s <= 0:
            return [task.get_name() for task in running]
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=min(left_s, CANCEL_AGAIN_S))
    return []


class Stop:
    """The steps of a stop, under one deadline. A step that has not ended in its own time, or by the
    deadline, is cancelled and left behind: the next one begins. What it raises is logged.
    """

    def __init__(self, limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + limit_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._loop.time())

    async def step(self, what: str, waiting: Coroutine[Any, Any, object], limit_s: float) -> bool:
        """Whether it was done."""
        limit_s, task = min(limit_s, self.left_s), asyncio.current_task()
        try:
            if await ends_within(waiting, limit_s):
                return True
            why = f"it took more than {limit_s:.1f} s"
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            why = "what it waited for was cancelled"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        log.warning("left undone at the stop", what=what, why=why)
        return False


def end_process_after(limit_s: float, last_words: Callable[[], object] = lambda: None) -> None:
    """Ends this process, unless it has ended by then: also where a thread of it hangs in a call to
    a disk or a name server, for which the interpreter would wait at its end. Status 1.
    """

    def end() -> None:
        log.error("the process did not end in time: it is ended", after_s=limit_s)
        last_words()
        os._exit(1)

    timer = threading.Timer(limit_s, end)
    timer.name, timer.daemon = "end of process", True
    timer.start()

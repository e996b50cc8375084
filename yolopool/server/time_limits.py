"""Tasks that are being cancelled: a time limit inside of one, and the end of all."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

CANCEL_AGAIN_S = 0.2


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


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they end: while it connects, the store's library may mistake a
    cancellation for a failed connection, and go on.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_AGAIN_S)

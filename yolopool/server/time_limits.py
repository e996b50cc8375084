"""A time limit for code that runs while its task is being cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any


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

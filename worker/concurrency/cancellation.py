"""Ends tasks and futures of the event loop."""

import asyncio
from contextlib import suppress
from typing import Any


async def cancel(task: "asyncio.Future[Any]") -> None:
    """Cancels a task and waits until it has ended; raises the error it ended with, if any."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

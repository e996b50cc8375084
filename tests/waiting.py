"""Waiting for what another process or task does, with a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def until(what: str, holds: Callable[[], object], limit_s: float = 60.0) -> None:
    """Waits until a call answers true."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
        time.sleep(0.02)


async def becomes(holds: Callable[[], object], limit_s: float = 60.0) -> None:
    """Waits until a call answers true, while the event loop goes on. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def answered(
    ask: Callable[[], Awaitable[Answer]],
    holds: Callable[[Answer], object],
    limit_s: float = 20.0,
) -> Answer:
    """Asks until what is answered holds, and returns that. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - as in becomes
            await asyncio.sleep(0.02)
    return answer

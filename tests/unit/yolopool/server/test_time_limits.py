"""A time limit holds in a task that is being cancelled, whatever Python's release."""

import asyncio

import pytest

from yolopool.server.time_limits import ends_within


async def test_what_ends_in_time_has_ended() -> None:
    assert await ends_within(asyncio.sleep(0), 5)


async def test_what_does_not_is_cancelled() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    assert not await ends_within(endless(), 0)
    await ended.wait()


async def test_what_it_raises_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await ends_within(broken(), 5)


async def test_it_holds_in_a_task_that_is_being_cancelled() -> None:
    said = []

    async def cleaning() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append(await ends_within(asyncio.Event().wait(), 0.01))

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == [False]

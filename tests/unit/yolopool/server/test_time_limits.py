"""A time limit holds in a task that is being cancelled, whatever Python's release, and a stop ends
whatever its steps wait for.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from yolopool.server.time_limits import Stop, ended, ends_within


class Stubborn:
    """Takes a cancellation for a failed connection, as a store's library may, until it may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def run(self) -> None:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue


@pytest.fixture
async def stubborn() -> AsyncIterator[Stubborn]:
    one = Stubborn()
    yield one
    one.may_end.set()
    await asyncio.sleep(0)


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


async def test_tasks_that_do_not_end_are_named_and_left(stubborn: Stubborn) -> None:
    one = asyncio.create_task(stubborn.run(), name="stubborn")
    other = asyncio.create_task(asyncio.sleep(60), name="other")
    await asyncio.sleep(0)
    assert await ended([one, other], 0.05) == ["stubborn"]
    assert other.cancelled()
    stubborn.may_end.set()
    assert await ended([one], 5) == []


async def test_a_stop_goes_on_after_steps_that_hang_or_fail(stubborn: Stubborn) -> None:
    stop, done = Stop(0.1), []

    async def broken() -> None:
        raise ValueError("broken")

    async def waits_for_another() -> None:
        other = asyncio.create_task(asyncio.sleep(60))
        other.cancel()
        await other

    async def last() -> None:
        done.append("last")

    assert await stop.step("fine", asyncio.sleep(0), 5)
    assert not await stop.step("broken", broken(), 5)
    assert not await stop.step("waits for what was cancelled", waits_for_another(), 5)
    assert await stop.step("the one behind it", last(), 5)
    assert not await stop.step("hangs", stubborn.run(), 5)  # as long as all may take
    assert not await stop.step("too late", asyncio.sleep(60), 60)
    assert done == ["last"]


async def test_a_stop_that_is_cancelled_goes_no_further() -> None:
    async def stopping() -> None:
        await Stop(5).step("hangs", asyncio.sleep(60), 5)
        pytest.fail("it went on")

    task = asyncio.create_task(stopping())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_process_whose_thread_hangs_is_ended() -> None:
    """The interpreter would wait for the thread."""
    program = (
        "import threading\n"
        "from yolopool.server.time_limits import end_process_after\n"
        "end_process_after(0.05)\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == 1

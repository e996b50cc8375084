"""A time limit holds in a task that is being cancelled, whatever Python's release, and a stop ends
whatever its steps wait for.
"""

import asyncio
import subprocess
import sys

import pytest

from yolopool.server.time_limits import Stop, ended, ends_within


async def stubborn() -> None:
    """Takes a cancellation for a failed connection, as a store's library may, for ever."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if stubborn.may_end:  # type: ignore[attr-defined] # so that the loop can be closed
                raise


stubborn.may_end = False  # type: ignore[attr-defined]


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


async def test_tasks_that_do_not_end_are_named_and_left() -> None:
    stubborn.may_end = False  # type: ignore[attr-defined]
    one = asyncio.create_task(stubborn(), name="stubborn")
    other = asyncio.create_task(asyncio.sleep(60), name="other")
    await asyncio.sleep(0)
    assert await ended([one, other], 0.05) == ["stubborn"]
    assert other.cancelled()
    stubborn.may_end = True  # type: ignore[attr-defined]
    assert await ended([one], 5) == []


async def test_a_stop_goes_on_after_steps_that_hang_or_fail() -> None:
    stubborn.may_end = False  # type: ignore[attr-defined]
    stop, done = Stop(0.1), []

    async def broken() -> None:
        raise ValueError("broken")

    async def last() -> None:
        done.append("last")

    assert await stop.step("fine", asyncio.sleep(0), 5)
    assert not await stop.step("broken", broken(), 5)
    assert await stop.step("the one behind it", last(), 5)
    assert not await stop.step("hangs", stubborn(), 5)  # as long as all may take
    assert not await stop.step("too late", last(), 5)
    assert done == ["last"]
    stubborn.may_end = True  # type: ignore[attr-defined]
    await ended([one for one in asyncio.all_tasks() if one is not asyncio.current_task()], 5)


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

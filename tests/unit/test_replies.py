"""Answers of other threads: all are told in one word, and who went away hurts nobody."""

import asyncio

import pytest

from worker.replies import Reply, tell
from yolopool.errors import InferenceFailed


async def test_each_hears_its_own_though_one_went_away() -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(4)]
    futures[1].cancel()
    error = InferenceFailed("of the third alone")
    answers = [(Reply(one), number, None) for number, one in enumerate(futures)]
    answers[2] = (Reply(futures[2]), None, error)  # type: ignore[assignment]
    await asyncio.to_thread(tell, iter(answers))
    assert (await futures[0], await futures[3]) == (0, 3)
    with pytest.raises(InferenceFailed, match="of the third"):
        await futures[2]


def test_on_a_loop_that_ended_nobody_is_told() -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    Reply(future)("too late", None)
    tell([])
    assert not future.done()

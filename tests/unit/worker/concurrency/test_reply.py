"""Replies of other threads wake the loop once, and a caller who left does no harm."""

import asyncio

import pytest

from worker.concurrency.reply import Reply, deliver
from yolopool.errors import InferenceFailed


async def test_each_hears_its_own_though_one_went_away() -> None:
    replies = [Reply[int]() for _ in range(4)]
    replies[1].future.cancel()
    error = InferenceFailed("of the third alone")
    answers: list[tuple[Reply[int], int | None, Exception | None]]
    answers = [(one, number, None) for number, one in enumerate(replies)]
    answers[2] = (replies[2], None, error)
    await asyncio.to_thread(deliver, iter(answers))
    assert (await replies[0].future, await replies[3].future) == (0, 3)
    with pytest.raises(InferenceFailed, match="of the third"):
        await replies[2].future


def test_on_a_loop_that_ended_nobody_is_told() -> None:
    async def asked() -> Reply[str]:
        return Reply()

    reply = asyncio.run(asked())
    reply("too late", None)
    deliver([])
    assert not reply.future.done()

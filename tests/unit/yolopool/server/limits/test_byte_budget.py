"""How many bytes of requests are held at once."""

import asyncio

from yolopool.server.limits.byte_budget import ByteBudget


def test_bytes_are_taken_while_there_is_room_and_given_back() -> None:
    budget = ByteBudget(10)
    assert budget.take(10)
    assert not budget.take(1)
    budget.give(4)
    assert budget.take(4)
    assert budget.taken_bytes == 10


async def test_who_waits_for_room_gets_it_in_turn() -> None:
    budget, got = ByteBudget(10), list[str]()

    async def ask(name: str, count: int) -> None:
        await budget.room(count)
        got.append(name)

    await budget.room(8)
    waiting = [asyncio.create_task(ask(name, size)) for name, size in (("large", 9), ("small", 1))]
    await asyncio.sleep(0)
    budget.give(1)
    await asyncio.sleep(0)
    assert got == []  # the small one waits behind the large one, which would starve
    budget.give(7)
    await asyncio.gather(*waiting)
    assert (got, budget.taken_bytes) == (["large", "small"], 10)


async def test_who_wants_more_than_there_is_gets_it_alone() -> None:
    budget = ByteBudget(10)
    await budget.room(25)
    assert not budget.take(1)
    budget.give(25)
    assert budget.taken_bytes == 0


async def test_who_leaves_the_queue_holds_up_nobody() -> None:
    budget = ByteBudget(10)
    await budget.room(10)
    first, second = (asyncio.create_task(budget.room(size)) for size in (10, 1))
    await asyncio.sleep(0)
    budget.give(5)
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert budget.taken_bytes == 6


async def test_room_that_came_as_its_waiter_left_is_given_back() -> None:
    budget = ByteBudget(10)
    await budget.room(10)
    waiter = asyncio.create_task(budget.room(10))
    await asyncio.sleep(0)
    budget.give(10)  # it has its room, and has not run since
    waiter.cancel()
    await asyncio.wait((waiter,))
    assert budget.taken_bytes == 0

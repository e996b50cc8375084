"""Recycling: a successor is asked for once, beside this process where it fits, and takes over."""

import asyncio
from pathlib import Path

import pytest

from worker.process import hot_restart
from worker.process.recycler import Recycler
from yolopool.errors import LoadFailed
from yolopool.v1.types_pb2 import FencingToken, VersionKey
from yolopool.v1.worker_pb2 import AssignRequest

TOKEN = FencingToken(epoch=3, counter=4)
ORDERS = tuple(AssignRequest(version=VersionKey(model=name, version=1)) for name in "ab")


def a_recycler(
    note: Path | None, available_bytes: int = 10, has_fixed_port: bool = False
) -> Recycler:
    return Recycler(
        note, has_fixed_port, lambda: 10, lambda: available_bytes, lambda: TOKEN, lambda: ORDERS
    )


@pytest.mark.parametrize(
    ("available_bytes", "has_fixed_port", "beside"),
    [(10, False, True), (9, False, False), (10, True, False)],
)
async def test_a_successor_comes_beside_where_it_fits(
    tmp_path: Path, available_bytes: int, has_fixed_port: bool, beside: bool
) -> None:
    note = tmp_path / "note"
    recycler = a_recycler(note, available_bytes, has_fixed_port)
    recycler.recycle("3 bytes did not come back")
    recycler.recycle("again")
    assert recycler.is_recycling
    expected = hot_restart.RestartNote("3 bytes did not come back", beside, TOKEN, ORDERS)
    assert hot_restart.read(note) == expected


async def test_who_goes_first_ends_when_it_recycles(tmp_path: Path) -> None:
    recycler = a_recycler(tmp_path / "note", available_bytes=0)
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    ending = asyncio.create_task(recycler.until_end(told))
    await asyncio.sleep(0)
    assert not ending.done()
    recycler.recycle("why")
    assert await ending == "recycled"
    assert told.cancelled()


@pytest.mark.parametrize("is_recycling", [False, True])
async def test_who_has_a_successor_beside_ends_when_told(
    tmp_path: Path, is_recycling: bool
) -> None:
    recycler = a_recycler(tmp_path / "note")
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    ending = asyncio.create_task(recycler.until_end(told))
    if is_recycling:
        recycler.recycle("why")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ending.done()
    told.set_result("SIGTERM")
    assert await ending == "SIGTERM"


async def test_a_successor_adopts_the_token_and_loads_what_it_can(tmp_path: Path) -> None:
    note = tmp_path / "note"
    a_recycler(note).recycle("why")
    adopted: list[FencingToken] = []
    loaded: list[str] = []

    async def assign(order: AssignRequest) -> None:
        assert adopted, "the token comes first"
        assert note.exists(), "the note goes at the end"
        loaded.append(order.version.model)
        if order.version.model == "a":
            raise LoadFailed("injected")

    successor = a_recycler(note)
    await successor.take_over(adopted.append, assign)
    assert (adopted, loaded, successor.replaces_because) == ([TOKEN], ["a", "b"], "why")
    assert not note.exists()


@pytest.mark.parametrize("has_supervisor", [False, True])
async def test_without_a_note_nothing_is_taken_over(tmp_path: Path, has_supervisor: bool) -> None:
    async def assign(order: AssignRequest) -> None:
        raise AssertionError

    recycler = a_recycler(tmp_path / "note" if has_supervisor else None)
    await recycler.take_over(lambda token: None, assign)
    assert recycler.replaces_because == ""

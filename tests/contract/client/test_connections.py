"""How clients reach a pool: past a proxy, at one of several control planes, and after a fork."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

import numpy as np
import pytest

from tests.contract.scripted_pool import ScriptedPool
from yolopool import AsyncClient, Client, errors
from yolopool.transport import PROXY

NOBODY = "http://127.0.0.1:9"
PIXELS = np.zeros((8, 8), np.uint8)


@pytest.fixture
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.mark.parametrize("variable", PROXY)
def test_no_proxy_stands_before_loopback(
    pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, NOBODY)
    for address in (pool.address, f"dns:///localhost:{pool.address.rpartition(':')[2]}"):
        with Client(address) as client:
            assert len(client.detect(PIXELS, model="shapes")) == 2


@pytest.mark.parametrize("variable", PROXY)
def test_a_proxy_that_is_in_the_way_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, NOBODY)
    with Client("pool.example.org:50051") as client:
        for call in (client.fleet, lambda: list(islice(client.events(), 1))):
            with pytest.raises(errors.Unavailable, match=f"the proxy of {variable}"):
                call()

    async def inside() -> None:
        async with AsyncClient("pool.example.org:50051") as client:
            await client.fleet()

    with pytest.raises(errors.Unavailable, match=f"the proxy of {variable}"):
        asyncio.run(inside())


def test_calls_are_spread_over_all_that_a_name_stands_for(pool: ScriptedPool) -> None:
    with ExitStack() as running:
        second = running.enter_context(ScriptedPool())
        client = running.enter_context(Client(f"ipv4:{pool.address},{second.address}"))
        while not (pool.script.calls and second.script.calls):
            client.detect(PIXELS, model="shapes")
        for script in (pool.script, second.script):
            script.calls.clear()
        for _ in range(6):
            client.detect(PIXELS, model="shapes")
        assert len(pool.script.calls) == len(second.script.calls) == 3


def test_one_of_several_that_ends_loses_no_call(pool: ScriptedPool) -> None:
    with ScriptedPool() as second:
        client = Client(f"ipv4:{pool.address},{second.address}")
        while not second.script.calls:
            client.detect(PIXELS, model="shapes")
    pool.script.calls.clear()
    for _ in range(4):
        client.detect(PIXELS, model="shapes")
    assert len(pool.script.calls) == 4
    client.close()

"""How clients reach a pool: past a proxy, at one of several control planes, and after a fork."""

import asyncio
import subprocess
import sys
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


def test_a_proxy_that_is_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "https_proxy"
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


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_without_descriptors_a_client_says_so(pool: ScriptedPool, kind: str) -> None:
    code = f"""
import asyncio, resource, sys
from yolopool import AsyncClient, Client

async def run():
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), 4096))
    client = {kind}(sys.argv[2])

try:
    asyncio.run(run())
except Exception as error:
    print(error.reason)
"""
    # Those of asyncio's own loop are open already.
    done = subprocess.run(
        [sys.executable, "-c", code, "7", pool.address], capture_output=True, text=True, check=True
    )
    assert done.stdout == "OUT_OF_FILES\n"


# Forks where nothing else runs; prints what each attempt in a child ends with.
FORKING = """
import asyncio, os, socket, sys, threading
import numpy as np
from yolopool import AsyncClient, Client

address, pixels = sys.argv[1], np.zeros((8, 8), np.uint8)

def in_child(*attempts):
    for attempt in attempts:
        reading, writing = os.pipe()
        if not (child := os.fork()):
            try:
                attempt()
                os.write(writing, b"ok")
            except BaseException as error:
                os.write(writing, getattr(error, "reason", repr(error)).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        print(os.read(reading, 999).decode())

def own():
    with Client(address) as client:
        client.detect(pixels, model="shapes", timeout_s=20)

def own_async():
    async def inside():
        async with AsyncClient(address) as client:
            await client.detect(pixels, model="shapes", timeout_s=20)
    asyncio.run(inside())

idle = Client(address)
idle.fleet()
in_child(own, own_async, idle.fleet, idle.close)

async def while_open():
    async with AsyncClient(address) as client:
        await client.fleet()
        def inherited():
            client.fleet().send(None)
        in_child(own, own_async, inherited)
asyncio.run(while_open())
in_child(own_async)

nobody = socket.create_server(("127.0.0.1", 0))
calling = Client(f"127.0.0.1:{nobody.getsockname()[1]}")
thread = threading.Thread(target=lambda: in_vain(calling))
def in_vain(client):
    try:
        client.detect(pixels, model="shapes", timeout_s=600)
    except Exception:
        pass
thread.start()
connection, _ = nobody.accept()
in_child(own, own_async, idle.fleet, calling.close)
calling.close()
thread.join()
in_child(own)
"""


def test_a_forked_process_calls_or_hears_why_it_can_not(pool: ScriptedPool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, pool.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    refused = "FORKED_PROCESS"
    assert done.stdout.split() == [
        "ok", "ok", "ok", "ok",  # nobody calls
        "ok", refused, refused, "ok",  # an asynchronous client is open; none is
        refused, refused, refused, "ok",  # another thread is in a call
        "ok",
    ]  # fmt: skip

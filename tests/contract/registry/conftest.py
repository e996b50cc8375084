"""The stores that the contract of the registry is tested on: in memory, and two real servers."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from control_plane.store.memory_registry import MemoryRegistry
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.registry import Registry
from tests.contract.redis_servers import DEBIAN, WHEEL, find, program, server
from tests.contract.registry.samples import Case


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        found = {}
        for kind in filter(find, (WHEEL, DEBIAN)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yp-")))
            stack.enter_context(server(kind, folder))
            found[kind] = f"unix://{folder}/redis.sock"
        yield found


@pytest.fixture(params=["memory", WHEEL, DEBIAN])
async def case(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Case]:
    if request.param == "memory":
        memory = MemoryRegistry()

        async def empty() -> None:
            memory.empty()

        yield Case(memory, memory, empty)
        return
    program(request.param)  # skips the test where there is none
    one, other = RedisRegistry(urls[request.param]), RedisRegistry(urls[request.param])
    for _ in range(100):  # the server may still be starting
        try:
            await one._redis.flushall()
            break
        except Exception:
            await asyncio.sleep(0.05)
    await one.create()
    yield Case(one, other, one._redis.flushall)
    await one.close()
    await other.close()


@pytest.fixture
async def registry(case: Case) -> Registry:
    return case.registry

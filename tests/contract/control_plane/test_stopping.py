"""A control plane ends when it is told to, whatever the store does meanwhile."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import app
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.types.event import EventKind
from tests.chaos.relay import Relay
from tests.contract.control_plane_rig import Rig
from tests.contract.redis_servers import any_kind, free_port, server
from tests.waiting import becomes

# What a step of the stop asks of the store.
STEPS = ("drop_lease", "append_event", "close")
LATE_S = 0.2
# A stop that hangs fails the test; it is no bound on its time.
HANGS_S = 60


class Stuck(MemoryRegistry):
    """Answers until `stuck` is set; then one verb goes on for ever, cancelled or not."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.stuck, self.given_up = False, asyncio.Event()
        own = getattr(self, verb)

        async def asked(*given: Any, **more: Any) -> Any:
            while self.stuck and not self.given_up.is_set():
                try:
                    await self.given_up.wait()
                except asyncio.CancelledError:
                    continue  # a failed connection, the library thinks
            return await own(*given, **more)

        setattr(self, verb, asked)


@pytest.mark.parametrize("verb", STEPS)
async def test_a_store_that_never_answers_does_not_keep_it(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("STEP_S", "STORE_S"):
        monkeypatch.setattr(app, limit, 0.1)
    registry = Stuck(verb)
    rig = Rig(tmp_path, registry, drain_grace_s=0.1)
    await rig.plane.start()
    await becomes(lambda: rig.plane._election.is_leader)
    registry.stuck = True
    rig.plane._recorder.record(EventKind.RESTORED, message="to be written at the end")
    async with asyncio.timeout(HANGS_S):
        await rig.plane.stop()
    registry.given_up.set()


@pytest.fixture
def redis() -> Iterator[int]:
    """A real one on a port."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        port = free_port()
        with server(any_kind(), Path(folder), "--port", str(port)):
            yield port


async def test_a_slow_store_is_told_that_it_leads_no_more(redis: int, tmp_path: Path) -> None:
    """Each answer takes 0.4 s."""
    relay = Relay(free_port(), redis)
    await relay.open()
    first = Rig(tmp_path / "a", RedisRegistry(f"redis://127.0.0.1:{relay._port}"))
    await first.plane.start()
    await becomes(lambda: first.plane._election.is_leader)
    relay.delay_s = LATE_S
    async with asyncio.timeout(HANGS_S):
        await first.plane.stop()
    await relay.close()
    store = RedisRegistry(f"redis://127.0.0.1:{redis}")
    assert await store.leader() is None
    await store.close()

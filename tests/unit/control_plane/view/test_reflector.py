"""Refreshes of the view: each shows what was written before it, and many share one read."""

import asyncio

import pytest

from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.desired import Desired, DesiredDelta
from control_plane.types.version import VersionKey, VersionSettings
from control_plane.view.reflector import Reflector
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable
from yolopool.server.clock import Clock


class SlowRegistry(MemoryRegistry):
    """A read begins at once and ends when `answer` is set; `failures` reads fail first."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.failures = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        self.reads += 1
        found = await super().desired_since(known)
        await self.answer.wait()
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable("the store does not answer")
        return found

    async def write_version(self, name: str) -> VersionKey:
        version = await self.register(name, "a" * 64, VersionSettings(), "", "", 1.0)
        return version.key


class Fixture:
    def __init__(self) -> None:
        self.registry = SlowRegistry()
        self.view = View(Clock(lambda: 0.0, lambda: 0.0))
        self.reflector = Reflector(self.registry, self.view, None, lambda _: None)

    async def begin(self, count: int = 1) -> list[asyncio.Task[bool]]:
        """Refreshes that have got as far as they can."""
        tasks = [asyncio.create_task(self.reflector.refresh()) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def fixture() -> Fixture:
    fixture = Fixture()
    assert await fixture.reflector.refresh()
    return fixture


async def test_a_refresh_shows_what_was_written(fixture: Fixture) -> None:
    key = await fixture.registry.write_version("a")
    assert key not in fixture.view.desired.versions
    assert await fixture.reflector.refresh()
    assert key in fixture.view.desired.versions


async def test_those_who_come_during_a_read_share_the_next(fixture: Fixture) -> None:
    fixture.registry.answer.clear()
    first = await fixture.begin()
    key = await fixture.registry.write_version("a")  # the read that runs does not include it
    later = await fixture.begin(100)
    assert fixture.registry.reads == 1
    fixture.registry.answer.set()
    assert await asyncio.gather(*first, *later) == [True] * 101
    assert fixture.registry.reads == 2
    assert key in fixture.view.desired.versions


async def test_those_who_share_a_read_share_its_failure(fixture: Fixture) -> None:
    fixture.registry.answer.clear()
    fixture.registry.failures = 2
    tasks = [*await fixture.begin(), *await fixture.begin(10)]
    fixture.registry.answer.set()
    assert await asyncio.gather(*tasks) == [False] * 11
    assert fixture.registry.reads == 2
    assert await fixture.reflector.refresh()


async def test_a_failed_read_fails_nobody_who_came_later(fixture: Fixture) -> None:
    fixture.registry.answer.clear()
    fixture.registry.failures = 1
    (first,) = await fixture.begin()
    later = await fixture.begin(10)
    fixture.registry.answer.set()
    assert not await first
    assert await asyncio.gather(*later) == [True] * 10


async def test_another_reads_if_the_caller_that_reads_leaves(fixture: Fixture) -> None:
    fixture.registry.answer.clear()
    (first,) = await fixture.begin()
    leaving, *staying = await fixture.begin(3)
    key = await fixture.registry.write_version("a")
    late = await fixture.begin()
    first.cancel()
    await fixture.begin(0)
    leaving.cancel()  # it reads now
    await fixture.begin(0)
    fixture.registry.answer.set()
    assert await asyncio.gather(*staying, *late) == [True] * 3
    assert key in fixture.view.desired.versions
    assert first.cancelled()
    assert leaving.cancelled()


async def test_a_record_that_cannot_be_read_fails_no_writer(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(_: Desired) -> None:
        raise ValueError("a record of a newer release")

    monkeypatch.setattr(fixture.registry, "desired_since", unreadable)
    assert not await fixture.reflector.refresh()

"""The lease of the leader: taken, renewed, lost, resigned; and who may command workers when."""

import asyncio

import pytest

from control_plane.leader.election import LeaderElection
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.lease import FencingToken
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from tests.unit.control_plane.fleets import worker
from yolopool.errors import RegistryUnavailable, StaleToken
from yolopool.server.clock import Clock

LEASE_S, GATHER_S = 3.0, 2.0


class Elections:
    """Two control planes, `a` and `b`, on one store and one clock."""

    def __init__(self) -> None:
        self.now = 100.0
        clock = Clock(lambda: self.now, lambda: self.now)
        self.registry = MemoryRegistry(clock.unix, clock.monotonic)
        self.views = {name: View(clock) for name in "ab"}
        for view in self.views.values():
            view.registry_readable = True
        self.a, self.b = (
            LeaderElection(name, self.registry, view, clock, LEASE_S, GATHER_S)
            for name, view in self.views.items()
        )
        self.a.address = "a:1"


async def test_one_leads_and_the_other_hears_who() -> None:
    both = Elections()
    token = await both.a.campaign()
    assert token is not None
    assert both.a.token == token
    assert await both.b.campaign() is None
    assert both.views["b"].leader_address == "a:1"
    assert (both.a.is_leader, both.b.is_leader) == (True, False)


async def test_a_lease_is_renewed_before_it_ends() -> None:
    both = Elections()
    token = await both.a.campaign()
    for _ in range(9):
        both.now += LEASE_S / 2
        assert await both.a.campaign() == token
        assert await both.b.campaign() is None


async def test_a_suspended_leader_holds_no_token_until_it_has_campaigned() -> None:
    both = Elections()
    first = await both.a.campaign()
    assert first is not None
    both.now += LEASE_S
    assert both.a.token is None
    assert not both.a.is_leader
    second = await both.b.campaign()
    assert second is not None
    assert second > first
    assert await both.a.campaign() is None
    assert both.b.is_leader


async def test_a_leader_that_hears_of_a_higher_token_takes_one_above_it() -> None:
    both = Elections()
    token = await both.a.campaign()
    assert token is not None
    newer = FencingToken(token.epoch, token.counter + 10**9)
    both.views["a"].apply_token(newer)
    taken = await both.a.campaign()
    assert taken is not None
    assert taken > newer


async def test_a_refused_token_is_dropped_and_the_next_is_higher() -> None:
    both = Elections()
    token = await both.a.campaign()
    assert token is not None
    both.a.deposed(StaleToken("a worker has obeyed another"))
    assert both.a.token is None
    both.now += LEASE_S
    again = await both.a.campaign()
    assert again is not None
    assert again > token


async def test_who_resigns_is_followed_at_once() -> None:
    both = Elections()
    await both.a.campaign()
    await both.a.resign()
    assert not both.a.is_leader
    assert await both.b.campaign() is not None
    await both.a.resign()  # it has nothing to give up any more
    assert both.b.is_leader


async def test_without_its_store_it_leads_until_its_lease_ends() -> None:
    both = Elections()
    await both.a.campaign()
    away = RegistryUnavailable("no answer")
    both.a.registry_lost(away)
    assert both.a.is_leader
    assert not both.views["a"].registry_available
    both.now += LEASE_S
    both.a.registry_lost(away)
    assert both.a.token is None
    assert both.views["a"].leader_address == ""
    await both.a.campaign()
    assert both.views["a"].registry_available


async def test_a_new_leader_waits_for_known_workers() -> None:
    both = Elections()
    both.views["a"].expected = frozenset({"w1"})
    token = await both.a.campaign()
    assert both.a.acting_token is None
    both.now += GATHER_S
    assert both.a.acting_token == token
    both.views["b"].expected = frozenset()
    assert both.b.has_gathered()


async def test_it_waits_for_the_workers_on_record_from_when_it_asks() -> None:
    both = Elections()
    await both.registry.record_workers([worker("w1")], 30.0)
    both.now += 10 * GATHER_S  # what went before, as a store that did not answer
    await both.a.expect_workers()
    assert not both.a.has_gathered()
    both.views["a"].join(worker("w1"), None)
    assert both.a.has_gathered()
    await both.b.expect_workers()
    both.now += GATHER_S
    assert both.b.has_gathered()


async def test_without_a_record_it_waits_for_whoever_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Elections()
    await both.a.expect_workers()
    assert both.a.has_gathered()  # nobody is on record: the fleet is new

    async def away() -> tuple[WorkerInfo, ...]:
        raise RegistryUnavailable("no answer")

    monkeypatch.setattr(both.registry, "workers", away)
    await both.b.expect_workers()
    assert not both.b.has_gathered()
    both.now += GATHER_S
    assert both.b.has_gathered()


async def test_a_store_that_hangs_counts_as_away_within_half_a_lease() -> None:
    clock = Clock(lambda: 0.0, lambda: 0.0)
    view, registry = View(clock), MemoryRegistry()
    election = LeaderElection("a", registry, view, clock, lease_s=0.02)
    with pytest.raises(RegistryUnavailable, match=r"0\.01 s"):
        await election.bounded(asyncio.sleep(9))

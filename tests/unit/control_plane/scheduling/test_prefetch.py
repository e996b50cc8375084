"""What is prefetched, what is not, and what becomes of it."""

from dataclasses import replace

import pytest

from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign
from control_plane.types.desired import Want, WantSource
from control_plane.types.policy import Residency, ResidencyMode
from control_plane.types.snapshot import Snapshot
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
    key,
    released,
    replica,
    snapshot,
    version,
    want,
    worker,
)
from yolopool.server.arrival_rates import ArrivalRates, Arrivals
from yolopool.vocabulary import ReplicaState

UNIX = 5000.0


def departed(before: Snapshot, **rates: float) -> Snapshot:
    gone = {key(name): Arrivals(ArrivalRates(r, r, r), NOW) for name, r in rates.items()}
    return replace(before, departed=gone)


def test_what_was_asked_for_is_fetched_ahead_where_there_is_room() -> None:
    idle = worker("w", 30, [replica("b", 20)], tier=40)
    before = departed(snapshot([idle], [want("b")], [version("a"), version("b", 20)]), a=0.5)
    (fetch,) = plan(before, NOW)
    assert isinstance(fetch, Assign)
    assert (fetch.worker, fetch.key, fetch.prefetch) == ("w", key("a"), True)
    assert str(fetch).startswith("prefetch a@1 to w: ")


@pytest.mark.parametrize(
    "change",
    [
        {"tier": 0},  # nothing beneath the device
        {"tier": 25},  # no room there
        {"replicas": [replica("b", 20, busy=0.5)]},
        {"replicas": [replica("b", 20, state=ReplicaState.ASSIGNED)]},
    ],
)
def test_nothing_is_fetched_ahead_beside_work_or_without_room(change: dict[str, object]) -> None:
    fields = {"replicas": [replica("b", 20)], "tier": 40, **change}
    one = worker("w", 30, **fields)  # type: ignore[arg-type]
    before = departed(snapshot([one], [want("b")], [version("a"), version("b", 20)]), a=0.5)
    assert plan(before, NOW) == []


def test_what_was_unloaded_or_is_kept_on_demand_is_not_fetched_ahead() -> None:
    idle = worker("w", 30, tier=40)
    before = departed(snapshot([idle], [], [version("a")]), a=0.5)
    assert assigned(plan(before, NOW)) == ["w/a"]
    assert plan(replace(before, unloaded={key("a")}), NOW) == []
    on_demand = version("a", residency=Residency(ResidencyMode.ON_DEMAND))
    assert plan(departed(snapshot([idle], [], [on_demand]), a=0.5), NOW) == []


def test_the_next_version_of_a_model_in_use_is_fetched_ahead() -> None:
    used = worker("w", 30, [replica("a", rate=1.0)], tier=40)
    newer = replace(version("a"), key=key("a", 2))
    before = snapshot([used], [want("a")], [version("a"), newer])
    (fetch,) = plan(before, NOW)
    assert isinstance(fetch, Assign)
    assert (fetch.key, fetch.prefetch) == (key("a", 2), True)


def test_what_was_fetched_ahead_leaves_first_and_is_not_replaced() -> None:
    held = [
        replica("ahead", state=ReplicaState.WARM, used=0.0),
        replica("used", rate=0.001, used=9.0),
    ]
    ahead = Want(key("ahead"), 1, False, WantSource.PREFETCH, 50.0)
    full = worker("w", 100, held, tier=20)
    before = snapshot([full], [ahead, want("used"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/ahead"]
    lost = plan(snapshot([worker("w", 100, tier=20)], [ahead]), NOW)
    assert [str(c) for c in lost] == [
        "drop want of ahead@1: it was only prefetched, and its worker is gone"
    ]


def ahead(used: float, **fields: object) -> Snapshot:
    """`a` was fetched ahead at 50, and used last at `used`."""
    there = replica("a", state=ReplicaState.WARM, used=used, **fields)  # type: ignore[arg-type]
    want_of = Want(key("a"), 1, False, WantSource.PREFETCH, 50.0)
    return snapshot([worker("w", 100, [there], tier=200)], [want_of], unix_s=UNIX)


def test_what_was_fetched_ahead_and_is_used_is_wanted_from_then_on() -> None:
    assert plan(ahead(used=0.0), NOW) == []
    assert next(str(c) for c in plan(ahead(used=60.0), NOW)).startswith("keep a@1")


def test_what_was_fetched_ahead_is_loaded_once_somebody_wants_it() -> None:
    before = ahead(used=0.0)
    loaded = replace(before, desired=replace(before.desired, wants={key("a"): want("a", 60.0)}))
    (assign,) = plan(loaded, NOW)
    assert isinstance(assign, Assign)
    assert (assign.worker, assign.prefetch) == ("w", False)

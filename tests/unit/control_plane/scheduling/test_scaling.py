"""How many copies of a version there are."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign
from control_plane.types.policy import Placement
from control_plane.types.worker import WorkerInfo
from tests.matrix import examples
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
    released,
    replica,
    snapshot,
    version,
    want,
    worker,
)


def queued(*held: tuple[str, float, float]) -> list[WorkerInfo]:
    """Workers by (name, queue_ms, busy) of their copy of `a`; an idle one beside."""
    there = [
        worker(name, replicas=[replica("a", queue_ms=waits, busy=busy)])
        for name, waits, busy in held
    ]
    return [*there, worker("idle")]


def test_where_requests_wait_at_every_copy_there_is_one_more() -> None:
    before = snapshot(queued(("w1", 400.0, 0.95), ("w2", 150.0, 0.9)), [want("a", replicas=2)])
    (more,) = plan(before, NOW)
    assert isinstance(more, Assign)
    assert (more.worker, more.pinned) == ("idle", False)
    assert "wait 150 ms at every copy" in more.why
    calm = snapshot(queued(("w1", 400.0, 0.95), ("w2", 50.0, 0.5)), [want("a", replicas=2)])
    assert plan(calm, NOW) == []


def test_no_copy_beyond_the_bound_or_to_a_busy_or_full_device() -> None:
    waiting = queued(("w1", 400.0, 0.95))
    bound = version("a", placement=Placement(max_replicas=1))
    assert plan(snapshot(waiting, [want("a")], [bound]), NOW) == []
    busy = worker("idle", replicas=[replica("b", busy=0.9)])
    assert plan(snapshot([waiting[0], busy], [want("a"), want("b")]), NOW) == []
    full = worker("idle", 15, replicas=[replica("b")])
    assert plan(snapshot([waiting[0], full], [want("a"), want("b")]), NOW) == []


def test_copies_stay_as_long_as_they_are_needed() -> None:
    needed = queued(("w1", 5.0, 0.4), ("w2", 5.0, 0.4))
    assert plan(snapshot(needed, [want("a")]), NOW) == []
    idle = queued(("w1", 5.0, 0.2), ("w2", 5.0, 0.2))
    assert released(plan(snapshot(idle, [want("a")]), NOW)) == ["w1/a"]


def test_copies_beyond_what_is_wanted_are_not_pinned() -> None:
    held = [
        worker("w1", replicas=[replica("a", pinned=True, queue_ms=300, busy=0.9)]),
        worker("w2", replicas=[replica("a", queue_ms=300, busy=0.9)]),
    ]
    assert plan(snapshot(held, [want("a", pinned=True)]), NOW) == []


@given(st.floats(0.0, 6.0), st.integers(1, 8))
@examples(80)
def test_constant_demand_moves_nothing_for_long(demand: float, devices: int) -> None:
    """Devices' worth of work for one version: copies settle, and stay as they are."""
    there = 1
    history = []
    for _ in range(20):
        share = demand / there
        waits = 20.0 / max(0.04, 1.0 - share) if share < 1.0 else 1000.0
        workers = [
            worker(
                f"w{n}",
                replicas=[replica("a", queue_ms=waits, busy=min(1.0, share))] if n < there else [],
            )
            for n in range(devices)
        ]
        commands = plan(snapshot(workers, [want("a")]), NOW)
        there += len(assigned(commands)) - len(released(commands))
        history.append(there)
    assert len(set(history[-8:])) == 1, history
    assert 1 <= there <= devices
    if demand < 0.9 * devices:
        assert there > demand


def test_a_copy_is_added_on_the_same_kind_of_device_only() -> None:
    waiting = worker("w1", replicas=[replica("a", queue_ms=400.0, busy=0.95)])
    other = worker("w2", 1000, kind="cpu")
    assert plan(snapshot([waiting, other], [want("a")]), NOW) == []
    same = worker("w3")
    assert assigned(plan(snapshot([waiting, other, same], [want("a")]), NOW)) == ["w3/a"]

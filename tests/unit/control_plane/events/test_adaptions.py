"""Events of what workers adapted to a p99 goal: one a change, none of what is seen first."""

from dataclasses import replace

from control_plane.events.adaptions import diff
from control_plane.types.event import EventKind
from control_plane.types.policy import BatchingConfig
from control_plane.types.worker import Adaption, WorkerInfo
from tests.unit.control_plane.fleets import key, replica, worker

KEY = key("shapes")


def with_(adaption: Adaption | None, incarnation: str = "a") -> dict[str, WorkerInfo]:
    held = replace(
        replica("shapes"), adaption=adaption, batching=BatchingConfig(8, p99_goal_ms=50.0)
    )
    return {"w": replace(worker("w"), incarnation=incarnation, replicas={KEY: held})}


def test_each_change_is_an_event_once() -> None:
    first = Adaption(8, 5.0)
    known, notices = diff({}, with_(first))
    assert notices == []
    smaller = Adaption(4, 5.0, 80.0)
    known, (notice,) = diff(known, with_(smaller))
    assert (notice.kind, notice.worker, notice.version) == (EventKind.BATCHING_ADAPTED, "w", KEY)
    told = "batch 8, delay 5 ms -> batch 4, delay 5 ms: p99 80 ms, its goal is 50 ms"
    assert notice.message == told
    # Another p99 alone is no change.
    known, notices = diff(known, with_(replace(smaller, p99_ms=70.0)))
    assert notices == []
    known, (out,) = diff(known, with_(replace(smaller, is_out_of_reach=True)))
    assert out.kind is EventKind.GOAL_OUT_OF_REACH
    known, (reached,) = diff(known, with_(replace(smaller, p99_ms=40.0)))
    assert (reached.kind, reached.message) == (
        EventKind.GOAL_REACHED,
        "p99 40 ms, its goal is 50 ms",
    )
    assert diff(known, with_(smaller))[1] == []


def test_another_process_and_a_goal_that_is_gone_say_nothing() -> None:
    known, _ = diff({}, with_(Adaption(8)))
    assert diff(known, with_(Adaption(2), "b"))[1] == []
    known, notices = diff(known, with_(None))
    assert (known, notices) == ({}, [])

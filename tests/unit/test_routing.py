"""Routing: who may answer, who is preferred, and what is said when nobody can."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from control_plane.commands import Wait
from control_plane.fleet import (
    Footprint,
    LoadReport,
    ReplicaState,
    VersionKey,
    WorkerInfo,
    WorkerState,
)
from control_plane.routing import Hold, Reject, Send, choose
from tests.unit.fleets import NOW, key, replica, worker
from yolopool import errors


@dataclass
class FrozenView:
    """A view that does not change."""

    workers: dict[str, WorkerInfo]
    loads: dict[str, LoadReport] = field(default_factory=dict)
    outstanding: dict[str, int] = field(default_factory=dict)
    waits: dict[VersionKey, Wait] = field(default_factory=dict)

    @property
    def holders(self) -> dict[VersionKey, Sequence[str]]:
        return {key("a"): [id_ for id_, one in self.workers.items() if key("a") in one.replicas]}


def view_of(*workers: WorkerInfo) -> FrozenView:
    return FrozenView({one.id: one for one in workers})


def with_a(name: str, **changes: object) -> WorkerInfo:
    one = worker(name, replicas=[replica("a")])
    return replace(one, **changes)  # type: ignore[arg-type] # any field


def chosen(view: FrozenView, rounds: int = 50, excluded: Sequence[str] = ()) -> set[str]:
    rng = Random(1)
    routes = [choose(view, key("a"), NOW, rng, excluded) for _ in range(rounds)]
    return {route.worker.id for route in routes if isinstance(route, Send)}


def test_only_live_workers_with_a_loaded_replica() -> None:
    assigned = replica("a", state=ReplicaState.ASSIGNED)
    leaving = replica("a", state=ReplicaState.RELEASING)
    view = view_of(
        with_a("good"),
        with_a("late", lease_until_s=NOW),
        with_a("draining", state=WorkerState.DRAINING),
        worker("loading", replicas=[assigned]),
        worker("leaving", replicas=[leaving]),
        worker("empty"),
    )
    assert chosen(view) == {"good"}


def test_a_warm_replica_serves_and_a_hot_one_is_preferred() -> None:
    warm = worker("warm", replicas=[replica("a", 500_000_000, state=ReplicaState.WARM)])
    assert chosen(view_of(warm)) == {"warm"}
    assert chosen(view_of(warm, with_a("hot"))) == {"hot"}


def test_a_swap_counts_as_it_was_measured() -> None:
    def warm(name: str, swap_ms: float) -> WorkerInfo:
        one = replica("a", 500_000_000, state=ReplicaState.WARM)
        return worker(name, replicas=[replace(one, footprint=Footprint(1, 1, swap_ms=swap_ms))])

    assert chosen(view_of(warm("slow", 80.0), warm("fast", 2.0))) == {"fast"}
    # Not measured: 50 ms at 10 GB/s.
    assert chosen(view_of(warm("slow", 80.0), warm("unknown", 0.0))) == {"unknown"}
    assert chosen(view_of(warm("unknown", 0.0), warm("fast", 2.0))) == {"fast"}


def test_tried_workers_are_excluded_by_incarnation() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    assert chosen(view, excluded=["w1-1"]) == {"w2"}
    assert chosen(view, excluded=["w1-0"]) == {"w1", "w2"}


def test_of_two_the_one_that_ends_first() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    view.loads["w1"] = LoadReport(outstanding=3, estimated_wait_ms=30.0)
    assert chosen(view) == {"w2"}


def test_own_calls_count_before_they_are_reported() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    view.outstanding["w1"] = 2
    assert chosen(view) == {"w2"}
    view.loads["w1"] = LoadReport(outstanding=2, estimated_wait_ms=0.0)
    assert chosen(view) == {"w1", "w2"}


def test_equal_workers_share_the_work() -> None:
    assert chosen(view_of(*[with_a(f"w{n}") for n in range(4)])) == {"w0", "w1", "w2", "w3"}


def test_without_workers_it_holds() -> None:
    route = choose(view_of(), key("a"), NOW, Random(1))
    assert isinstance(route, Hold)
    assert route.reason == "NO_WORKER"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("MODEL_TOO_LARGE", errors.ModelTooLarge),
        ("LOAD_FAILED", errors.LoadFailed),
        ("LEDGER_FULL", errors.LedgerFull),
    ],
)
def test_what_the_plan_says_is_final_is_an_error(
    reason: str, kind: type[errors.YolopoolError]
) -> None:
    view = view_of(worker("w1"))
    view.waits[key("a")] = Wait(key("a"), reason, "because", True, 2.0)
    route = choose(view, key("a"), NOW, Random(1))
    assert isinstance(route, Reject)
    assert type(route.error) is kind
    assert (route.error.message, route.error.retry_after_s) == ("because", 2.0)


def test_else_it_holds_with_what_it_waits_for() -> None:
    view = view_of(worker("w1"))
    view.waits[key("a")] = Wait(key("a"), "LEDGER_FULL", "all are busy")
    assert choose(view, key("a"), NOW, Random(1)) == Hold("LEDGER_FULL", "all are busy")
    view.waits.clear()
    assert isinstance(choose(view, key("a"), NOW, Random(1)), Hold)

"""The table of workers: who is there, what each holds, and what a plan is told to look at."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from control_plane.types.desired import Desired
from control_plane.types.version import VersionKey
from control_plane.types.worker import Ledger, LoadReport, Replica, WorkerInfo, WorkerState
from control_plane.view.desired_cache import DesiredCache
from control_plane.view.plan_changes import PlanChanges
from control_plane.view.waiters import Waiters
from control_plane.view.worker_table import LOST_KEPT_S, WorkerTable
from tests.unit.control_plane.fleets import key, version
from yolopool.errors import WorkerNotFound
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates
from yolopool.server.clock import Clock
from yolopool.vocabulary import ReplicaState

A, B = key("a"), key("b")
RATES = ArrivalRates(1.0, 1.0, 1.0)


class Table(WorkerTable):
    """With a clock that tests set, and the changes at hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changes = PlanChanges()
        desired = DesiredCache()
        desired.take_all(Desired(1, "c", {A: version("a")}, {}))
        super().__init__(
            Clock(lambda: self.now, lambda: self.now), desired, self.changes, Waiters()
        )
        self.changes.take()


def replicas(*found: Replica) -> Mapping[VersionKey, Replica]:
    return {replica.key: replica for replica in found}


def hot(at: VersionKey, **kwargs: int) -> Replica:
    return replace(Replica(at, ReplicaState.HOT, 10, 0), **kwargs)  # type: ignore[arg-type]


def a_worker(id_: str = "w1", *found: Replica, incarnation: str = "i1") -> WorkerInfo:
    return WorkerInfo(
        id=id_,
        incarnation=incarnation,
        address=f"{id_}:1",
        device="cpu",
        device_kind="cpu",
        state=WorkerState.READY,
        lease_until_s=10.0,
        ledger=Ledger(100, 10, 0),
        load=LoadReport(sequence=1),
        replicas=replicas(*found),
    )


def state(table: WorkerTable) -> WorkerState:
    return table.workers["w1"].state


def test_a_worker_that_joins_is_where_its_replicas_are() -> None:
    table = Table()
    table.join(a_worker("w1", hot(A)))
    assert [(worker.id, replica.key) for worker, replica in table.replicas(A)] == [("w1", A)]
    assert set(table.holders) == {A}
    assert table.changes.take() == ({A}, {"w1"})
    table.apply_heartbeat(a_worker("w1", hot(A)))
    assert table.changes.take() == (set(), set())
    table.apply_heartbeat(a_worker("w1", hot(B)))
    assert set(table.holders) == {B}
    assert table.changes.take() == ({A, B}, {"w1"})


def test_another_process_must_join_and_ends_the_one_before() -> None:
    table, second = Table(), a_worker("w1", incarnation="i2")
    with pytest.raises(WorkerNotFound):
        table.apply_heartbeat(second)
    table.join(a_worker("w1", hot(A)))
    with pytest.raises(WorkerNotFound):
        table.apply_heartbeat(second)
    table.join(second)
    assert table.replicas(A) == []
    assert table.leave("w1", "i1") is None
    assert table.leave("w1", "i2") == second
    assert not table.workers


def test_a_worker_is_lost_when_its_lease_ran_out_and_later_not_listed() -> None:
    table = Table()
    table.join(a_worker("w1", hot(A)))
    assert table.expire(9.0) == []
    assert [worker.id for worker in table.expire(10.0)] == ["w1"]
    assert state(table) is WorkerState.LOST
    assert table.replicas(A) == []
    assert table.expire(11.0) == []
    table.apply_heartbeat(a_worker("w1", hot(A)))
    assert state(table) is WorkerState.READY
    assert table.mark_lost("w1", "other") is None
    assert table.mark_lost("w1", "i1") is not None
    table.expire(10.0 + LOST_KEPT_S)
    assert not table.workers
    assert not table.holders


def test_arrivals_outlive_the_replica_of_a_version_that_there_is() -> None:
    table = Table()
    both = [replace(hot(at), rates=RATES) for at in (A, B)]
    table.join(a_worker("w1", *both))
    table.join(a_worker("w2", both[0]))
    assert table.arrivals(A) == RATES + RATES
    table.leave("w1", "i1")
    assert table.arrivals(A) == RATES + RATES
    assert table.arrivals(B) == NO_ARRIVALS  # no such version is registered
    table.leave("w2", "i1")
    table.now = 30.0
    assert table.arrivals(A) == (RATES + RATES).later(30.0)


def test_own_calls_count_before_the_worker_reports_them() -> None:
    table = Table()
    table.join(a_worker("w1", hot(A)))
    table.now = 5.0
    for _ in range(2):
        table.sent("w1", A)
    assert table.outstanding == {"w1": 2}
    assert table.tickets["w1", A].last_used_unix_s == 5.0
    # Two of the three that it reports are ours.
    table.apply_heartbeat(a_worker("w1", hot(A, outstanding=3)))
    assert table.tickets["w1", A].foreign == 1
    assert not table.answered("w1", A)
    assert table.answered("w1", A)
    assert table.outstanding == {}
    table.leave("w1", "i1")
    assert table.tickets == {}
    assert not table.answered("w1", A)


def test_an_older_load_report_is_dropped() -> None:
    table = Table()
    table.join(a_worker())
    newer = LoadReport(outstanding=1, sequence=3)
    table.apply_load("w1", newer)
    table.apply_load("w1", LoadReport(outstanding=9, sequence=2))
    assert table.loads["w1"] == newer

"""Draining: a worker may go once its models are elsewhere, or when they can be nowhere else."""

from dataclasses import replace

from control_plane.reconcile.drain_progress import DrainProgress, progress
from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, Want
from control_plane.types.policy import Placement
from control_plane.types.version import ServingSpec
from control_plane.types.worker import WorkerInfo, WorkerState
from tests.unit.control_plane.fleets import NOW, key, replica, version, want, worker
from yolopool.vocabulary import ReplicaState

A = key("a")


def state(
    *workers: WorkerInfo,
    wants: tuple[Want, ...] = (),
    waits: tuple[Blocked, ...] = (),
    placement: Placement | None = None,
    patient: bool = True,
) -> DrainProgress:
    """How far w1 is; it is cordoned."""
    a = version("a")
    if placement is not None:
        a = replace(a, given=ServingSpec(placement=placement))
    desired = Desired(
        1, "c", {A: a, key("b"): version("b")}, {one.key: one for one in wants}, {"w1": "w1-1"}
    )
    by_id = {one.id: one for one in workers}
    by_key = {one.key: one for one in waits}
    return progress(desired, by_id, by_key, by_id["w1"], NOW, patient)


def holding(name: str, *models: str, state: ReplicaState = ReplicaState.HOT) -> WorkerInfo:
    return worker(name, replicas=[replica(one, state=state) for one in models])


def test_what_nobody_wants_keeps_nobody() -> None:
    assert state(holding("w1", "a"), worker("w2")) == DrainProgress()


def test_what_is_wanted_moves_first() -> None:
    wants = (want("a"), want("b"))
    assert state(holding("w1", "a", "b"), holding("w2", "b"), wants=wants) == DrainProgress(
        moving=(A,)
    )
    loading = holding("w2", "a", state=ReplicaState.ASSIGNED)
    assert state(holding("w1", "a"), loading, wants=wants) == DrainProgress(moving=(A,))
    there = holding("w2", "a", state=ReplicaState.WARM)
    assert state(holding("w1", "a"), there, wants=wants) == DrainProgress()


def test_as_many_as_are_wanted_and_can_be() -> None:
    wants = (want("a", replicas=2),)
    two = holding("w1", "a"), holding("w2", "a")
    assert state(*two, worker("w3"), wants=wants) == DrainProgress(moving=(A,))
    assert state(*two, wants=wants) == DrainProgress()  # one is there, and there is no third worker


def test_what_can_be_nowhere_else_does_not_hold_it() -> None:
    one = holding("w1", "a")
    assert state(one, wants=(want("a"),)) == DrainProgress(stuck=(A,))
    cpu_pool = Placement(pool="edge")
    assert state(one, worker("w2"), wants=(want("a"),), placement=cpu_pool) == DrainProgress(
        stuck=(A,)
    )
    gone = replace(worker("w2"), state=WorkerState.DRAINING)
    assert state(one, gone, wants=(want("a"),)) == DrainProgress(stuck=(A,))


def test_a_wait_of_the_plan_counts_when_it_is_final_or_has_lasted() -> None:
    both = holding("w1", "a"), worker("w2")
    final = Blocked(A, "LEDGER_FULL", "pinned models leave no room", final=True)
    passing = replace(final, final=False)
    wants = (want("a"),)
    assert state(*both, wants=wants, waits=(final,)) == DrainProgress(stuck=(A,))
    assert state(*both, wants=wants, waits=(passing,)) == DrainProgress(moving=(A,))
    assert state(*both, wants=wants, waits=(passing,), patient=False) == DrainProgress(stuck=(A,))
    # One that is being loaded is waited for, however long.
    assert state(*both, wants=wants, patient=False) == DrainProgress(moving=(A,))


def test_one_that_has_gone_keeps_nothing_back() -> None:
    gone = replace(holding("w1", "a"), state=WorkerState.LOST)
    assert state(gone, worker("w2"), wants=(want("a"),)) == DrainProgress()

"""What workers report that nothing explains."""

from dataclasses import replace

from control_plane.events.discrepancies import discrepancies, other_answers
from control_plane.types.desired import Desired
from control_plane.types.worker import WorkerInfo, WorkerState
from tests.unit.control_plane.fleets import key, replica, version, worker

KNOWN = Desired(1, "c", {key("a"): version("a")}, {})


def about(*workers: WorkerInfo, desired: Desired = KNOWN) -> list[tuple[str, str]]:
    return sorted(discrepancies(workers, desired))


def test_a_worker_as_it_should_be_is_no_news() -> None:
    assert about(worker("w", 1000, [replica("a")])) == []


def test_versions_that_nobody_knows_are_told() -> None:
    assert about(worker("w", 1000, [replica("a"), replica("b")])) == [("w-1", "b@1")]


def test_a_graph_that_answered_otherwise_is_told_each_time() -> None:
    once = replace(replica("a"), self_test="rows differ by 0.3")
    again = replace(once, self_test="it has numbers that are not finite")
    (first,), (second,) = (other_answers([worker("w", 1000, [one])]) for one in (once, again))
    assert first != second
    assert other_answers([worker("w", 1000, [once])])[first][0] == key("a")
    assert about(worker("w", 1000, [once])) == []


def test_memory_of_others_and_of_nobody_is_told_from_a_share_on() -> None:
    plain = worker("w", 1000)
    little = replace(plain, ledger=replace(plain.ledger, foreign_bytes=40, drift_bytes=40))
    assert about(little) == []
    much = replace(plain, ledger=replace(plain.ledger, foreign_bytes=90, drift_bytes=90))
    assert about(much) == [("w-1", "drift"), ("w-1", "foreign")]
    assert about(replace(much, state=WorkerState.LOST)) == []

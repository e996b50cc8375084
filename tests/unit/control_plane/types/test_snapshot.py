"""A snapshot says in one line what a person would ask."""

from dataclasses import replace

from control_plane.types.snapshot import LoadFailure
from tests.unit.control_plane.fleets import key, replica, snapshot, want, worker
from yolopool.vocabulary import ReplicaState

FULL = LoadFailure("LEDGER_FULL", "not now", 1.0)


def test_its_repr_counts_workers_replicas_and_wants_and_names_what_hinders() -> None:
    loading = replica("b", state=ReplicaState.ASSIGNED)
    before = snapshot(
        [worker("w1", replicas=[replica("a"), loading]), worker("w2")],
        [want("a"), want("b")],
        failures={("w2", key("shapes", 3)): FULL},
    )
    waiting = replace(before, waiting={key("b"): 1.0})
    assert repr(waiting) == (
        "Snapshot(revision 1: 2 workers, 1 assigned, 1 hot, 2 wants, 1 waiting: b@1, "
        "1 failed: shapes@3 on w2 LEDGER_FULL)"
    )
    assert repr(snapshot([])) == "Snapshot(revision 1: 0 workers, 0 wants)"


def test_of_many_it_names_three() -> None:
    failures = {(f"w{n}", key("a")): FULL for n in range(5)}
    assert repr(snapshot([], failures=failures)).endswith(
        "5 failed: a@1 on w0 LEDGER_FULL; a@1 on w1 LEDGER_FULL; a@1 on w2 LEDGER_FULL and 2 more)"
    )

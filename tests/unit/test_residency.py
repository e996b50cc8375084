"""Residency: room is made by the least recently used that may leave, or refused with a reason."""

from hypothesis import given
from hypothesis import strategies as st

from worker.ledger import Claim, Ledger
from worker.residency import Demote, NoRoom, Resident, make_room


def holding(budget: int, **weights: int) -> Ledger:
    ledger = Ledger(budget_bytes=budget)
    for key, size in weights.items():
        ledger = ledger.reserve(key, Claim(size)).commit(key, Claim(size))
    return ledger


def idle(key: str, last_used: float) -> Resident:
    return Resident(key, pinned=False, tickets=0, last_used=last_used)


def test_nothing_leaves_where_it_fits() -> None:
    assert make_room("c", Claim(50), holding(100, a=50), [idle("a", 1)]) == Demote(())


def test_the_least_recently_used_leaves_first() -> None:
    ledger = holding(100, a=40, b=40)
    assert make_room("c", Claim(30), ledger, [idle("b", 1), idle("a", 2)]) == Demote(("b",))


def test_who_need_not_leave_stays() -> None:
    ledger = holding(100, a=10, b=80)
    assert make_room("c", Claim(80), ledger, [idle("a", 1), idle("b", 2)]) == Demote(("b",))


def test_the_workspace_of_the_demoted_is_no_longer_counted() -> None:
    ledger = Ledger(budget_bytes=100).reserve("a", Claim(10, workspace_bytes=80))
    ledger = ledger.commit("a", Claim(10, workspace_bytes=80))
    assert make_room("b", Claim(60, 40), ledger, [idle("a", 1)]) == Demote(("a",))


def test_pinned_and_busy_replicas_stay_and_are_the_reason() -> None:
    residents = [
        Resident("a", pinned=True, tickets=0, last_used=1),
        Resident("b", pinned=False, tickets=2, last_used=2),
    ]
    answer = make_room("c", Claim(60), holding(100, a=40, b=40), residents)
    assert isinstance(answer, NoRoom)
    assert "1 pinned and 1 busy" in answer.error.message
    assert answer.error.details["needed_bytes"] == "60"


@given(
    st.lists(st.tuples(st.integers(1, 50), st.booleans(), st.integers(0, 1)), max_size=6),
    st.integers(1, 150),
)
def test_a_plan_is_enough_minimal_and_moves_nobody_it_must_not(
    replicas: list[tuple[int, bool, int]], needed: int
) -> None:
    ledger = holding(300, **{str(index): size for index, (size, _, _) in enumerate(replicas)})
    tight = Ledger(ledger.used_bytes, 0, 0, ledger.reserved, ledger.committed)
    residents = [
        Resident(str(index), pinned, tickets, last_used=index)
        for index, (_, pinned, tickets) in enumerate(replicas)
    ]
    answer = make_room("new", Claim(needed), tight, residents)
    movable = {resident.key: replicas[int(resident.key)][0] for resident in residents
               if resident.movable}  # fmt: skip
    if isinstance(answer, NoRoom):
        assert sum(movable.values()) < needed
        return
    freed = [movable[key] for key in answer.keys]
    assert sum(freed) >= needed
    assert all(sum(freed) - size < needed for size in freed)

"""Swaps: waiting tickets take turns, the most urgent first; pinned stays; never over the ledger."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batching.queue import Demand
from worker.replicas.ledger import Claim, Ledger
from worker.replicas.swap_policy import (
    MIN_TURN_S,
    TURN_PER_SWAP,
    Later,
    Refuse,
    Shrink,
    Swap,
    SwapCandidate,
    decide,
)


def a_candidate(key: str, size: int = 40, **fields: object) -> SwapCandidate:
    plain = SwapCandidate(
        key=key,
        claim=Claim(size),
        hot=False,
        pinned=False,
        wanted=False,
        demand=None,
        hot_since=0.0,
        swap_s=1.0,
        worth=(0.0, 0.0, key),
    )
    return replace(plain, **fields)  # type: ignore[arg-type]  # the tests name what there is


def waiting(order: int = 1, priority: int = 1) -> Demand:
    return Demand(1, (priority, 100.0, order))


def holding(
    candidates: Sequence[SwapCandidate], budget: int = 100, max_replicas: int = 0
) -> Ledger:
    ledger = Ledger(budget_bytes=budget, max_replicas=max_replicas)
    for candidate in candidates:
        if candidate.hot:
            ledger = ledger.reserve(candidate.key, candidate.claim)
            ledger = ledger.commit(candidate.key, candidate.claim)
    return ledger


def decided(candidates: Sequence[SwapCandidate], now: float = 0.0, budget: int = 100) -> object:
    return decide(candidates, holding(candidates, budget), now)


def test_nothing_is_done_for_nobody() -> None:
    assert decided([a_candidate("a", hot=True), a_candidate("b")]) is None


def test_what_fits_comes_without_anyone_leaving() -> None:
    candidates = [a_candidate("a", hot=True), a_candidate("b", demand=waiting())]
    assert decided(candidates) == Swap("b", ())


def test_the_idle_of_least_worth_leaves_first() -> None:
    candidates = [
        a_candidate("a", hot=True, worth=(2.0, 0.0, "a")),
        a_candidate("b", hot=True, worth=(1.0, 9.0, "b")),
        a_candidate("c", demand=waiting()),
    ]
    assert decided(candidates) == Swap("c", ("b",))


def test_who_need_not_leave_stays() -> None:
    candidates = [
        a_candidate("a", size=10, hot=True, worth=(0.0, 1.0, "a")),
        a_candidate("b", size=80, hot=True, worth=(0.0, 2.0, "b")),
        a_candidate("c", size=80, demand=waiting()),
    ]
    assert decided(candidates) == Swap("c", ("b",))


def test_the_workspace_of_who_leaves_is_no_longer_counted() -> None:
    candidates = [
        a_candidate("a", hot=True, claim=Claim(10, workspace_bytes=80)),
        a_candidate("b", claim=Claim(60, 40), demand=waiting()),
    ]
    assert decided(candidates) == Swap("b", ("a",))


def test_a_busy_one_stays_for_its_turn_and_then_leaves() -> None:
    busy = a_candidate("a", size=80, hot=True, demand=waiting(2), hot_since=5.0, swap_s=0.1)
    newcomer = a_candidate("b", demand=waiting(1))
    ends = 5.0 + 0.1 * TURN_PER_SWAP
    assert decided([busy, newcomer], now=5.5) == Later(ends)
    assert decided([busy, newcomer], now=ends) == Swap("b", ("a",))


def test_a_turn_is_never_shorter_than_a_little() -> None:
    busy = a_candidate("a", size=80, hot=True, demand=waiting(2), swap_s=0.0)
    assert decided([busy, a_candidate("b", demand=waiting(1))]) == Later(MIN_TURN_S)


def test_more_urgent_tickets_need_not_wait_for_the_end_of_a_turn() -> None:
    busy = a_candidate("a", size=80, hot=True, demand=waiting(priority=2))
    urgent = a_candidate("b", demand=waiting(priority=0))
    assert decided([busy, urgent]) == Swap("b", ("a",))


def test_the_most_urgent_comes_first() -> None:
    candidates = [
        a_candidate("a", demand=waiting(3)),
        a_candidate("b", demand=waiting(2)),
        a_candidate("c", wanted=True),
        a_candidate("d", pinned=True),
    ]
    order = []
    for _ in candidates:
        decision = decided(candidates, budget=1000)
        assert isinstance(decision, Swap)
        order.append(decision.key)
        candidates = [replace(s, hot=s.hot or s.key == decision.key) for s in candidates]
    assert order == ["d", "b", "a", "c"]


def test_what_is_only_wanted_comes_last_and_waits_for_the_end_of_a_turn() -> None:
    busy = a_candidate("a", size=80, hot=True, demand=waiting())
    wanted = a_candidate("b", wanted=True)
    assert decided([busy, wanted], now=1.0) == Later(TURN_PER_SWAP)
    assert decided([busy, wanted], now=TURN_PER_SWAP) == Swap("b", ("a",))
    assert decided([replace(busy, demand=None), wanted]) == Swap("b", ("a",))


def test_one_that_waits_for_a_turn_does_not_hold_up_one_that_fits() -> None:
    candidates = [
        a_candidate("a", size=60, hot=True, demand=waiting(3), hot_since=5.0),
        a_candidate("b", size=80, demand=waiting(1)),
        a_candidate("c", size=20, demand=waiting(2)),
    ]
    assert decided(candidates, now=5.0) == Swap("c", ())


def test_a_pinned_one_never_leaves_and_is_the_reason() -> None:
    candidates = [
        a_candidate("a", size=80, hot=True, pinned=True),
        a_candidate("b", size=30, demand=waiting()),
    ]
    answer = decided(candidates)
    assert isinstance(answer, Refuse)
    assert "1 pinned" in answer.error.message
    assert answer.error.details["needed_bytes"] == "30"


def test_a_pinned_one_takes_the_place_of_one_in_use() -> None:
    busy = a_candidate("a", size=80, hot=True, demand=waiting())
    assert decided([busy, a_candidate("b", pinned=True)]) == Swap("b", ("a",))


def test_a_budget_below_what_is_held_is_met_by_the_least_worth() -> None:
    candidates = [
        a_candidate("a", hot=True, demand=waiting()),
        a_candidate("b", hot=True, worth=(1.0, 0.0, "b")),
        a_candidate("c", hot=True, worth=(2.0, 0.0, "c")),
        a_candidate("d", hot=True, pinned=True),
    ]
    full = holding(candidates, budget=160)
    assert decide(candidates, full.with_budget(90), 0.0) == Shrink(("b", "c"))
    assert decide(candidates, full.with_budget(60), 0.0) == Shrink(("b", "c", "a"))
    assert decide(candidates[3:], holding(candidates[3:]).with_budget(1), 0.0) is None


def test_a_limit_of_count_is_kept() -> None:
    candidates = [a_candidate("a", size=1, hot=True), a_candidate("b", size=1, demand=waiting())]
    ledger = holding(candidates, max_replicas=1)
    assert decide(candidates, ledger, 0.0) == Swap("b", ("a",))


some_candidates = st.lists(
    st.builds(
        a_candidate,
        key=st.just(""),
        size=st.integers(1, 60),
        hot=st.booleans(),
        pinned=st.booleans(),
        wanted=st.booleans(),
        demand=st.none() | st.builds(waiting, st.integers(0, 9), st.integers(0, 2)),
        hot_since=st.floats(0, 20),
        swap_s=st.floats(0, 1),
    ),
    max_size=7,
)


@given(some_candidates, st.integers(60, 200), st.floats(0, 30))
def test_a_swap_fits_moves_nobody_it_must_not_and_takes_no_more_than_it_needs(
    drawn: list[SwapCandidate], budget: int, now: float
) -> None:
    candidates: list[SwapCandidate] = []
    ledger = Ledger(budget)
    for number, one in enumerate(drawn):
        named = replace(one, key=str(number), worth=(0.0, float(number), str(number)))
        if named.hot and ledger.free_bytes < named.claim.weights_bytes:
            named = replace(named, hot=False)
        if named.hot:
            ledger = ledger.reserve(named.key, named.claim).commit(named.key, named.claim)
        candidates.append(named)
    decision = decide(candidates, ledger, now)
    by_key = {one.key: one for one in candidates}
    asking = [s for s in candidates if not s.hot and (s.pinned or s.wanted or s.demand)]
    if decision is None:
        # Nobody asks, or the budget is less than the pinned ones hold.
        assert not asking
    if isinstance(decision, Later):
        assert decision.at > now
    if isinstance(decision, Refuse):
        rest = sum(s.claim.weights_bytes for s in candidates if s.hot and s.pinned)
        assert rest + by_key[decision.key].claim.weights_bytes > budget
    if isinstance(decision, Swap):
        one = by_key[decision.key]
        assert one in asking
        out = [by_key[key] for key in decision.out]
        assert all(other.hot and not other.pinned for other in out)
        for key in decision.out:
            ledger = ledger.release(key)
        ledger.reserve(one.key, one.claim)
        for other in out:
            back = ledger.reserve(other.key, other.claim)
            with pytest.raises(Exception, match="more bytes of the device"):
                back.reserve(one.key, one.claim)


def test_everyone_gets_a_turn() -> None:
    """Ten busy models and room for three, on a virtual clock: nobody starves, few swaps."""
    swap_s, pass_s, span_s = 0.005, 0.02, 15.0
    arrived = {str(n): n for n in range(10)}
    hot: dict[str, float] = {}
    served: dict[str, int] = dict.fromkeys(arrived, 0)
    now, swapper, number = 0.0, 0, 10
    while now < span_s:
        candidates = [
            a_candidate(
                key,
                size=30,
                hot=key in hot,
                demand=waiting(order),
                hot_since=hot.get(key, 0.0),
                swap_s=swap_s,
            )
            for key, order in arrived.items()
        ]
        decision = decide(candidates, holding(candidates), now)
        if isinstance(decision, Swap):
            for key in decision.out:
                del hot[key]
            hot[decision.key] = now = now + swap_s
            swapper += 1
            continue
        key = min(hot, key=lambda key: arrived[key])
        now += pass_s
        served[key] += 1
        arrived[key] = number = number + 1
    assert min(served.values()) > 0.8 * max(served.values())
    # Each swap is paid by several passes: at most an eighth of the time went into them.
    assert swapper * swap_s < span_s / TURN_PER_SWAP


def test_what_is_loading_is_not_evicted_but_waited_for() -> None:
    loading = a_candidate("a", size=80, hot=True, loading=True)
    newcomer = a_candidate("b", size=60, demand=waiting())
    assert decided([loading, newcomer]) is None
    assert decided([replace(loading, loading=False), newcomer]) == Swap("b", ("a",))
    too_large = a_candidate("c", size=120, demand=waiting())
    assert isinstance(decided([loading, too_large]), Refuse)
    pinned = replace(loading, pinned=True)
    assert isinstance(decided([pinned, newcomer]), Refuse), "it will never leave"
    ledger = holding([loading]).with_budget(50)
    assert decide([loading], ledger, 0.0) is None, "it can't shrink now"
    # What is on the device makes room beside it.
    hot = a_candidate("d", size=20, hot=True)
    assert decided([loading, hot, a_candidate("e", size=20, wanted=True)]) == Swap("e", ("d",))

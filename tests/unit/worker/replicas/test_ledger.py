"""The ledger: never over budget, a release gives back exactly, the order does not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.replicas.ledger import Claim, Ledger
from yolopool.errors import LedgerFull

claims = st.builds(
    Claim,
    weights_bytes=st.integers(0, 60),
    workspace_bytes=st.integers(0, 60),
    private_bytes=st.integers(0, 10),
    transient_bytes=st.integers(0, 20),
)
steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "commit", "release"]), st.sampled_from("abcd"), claims)
)


def act(ledger: Ledger, step: str, key: str, claim: Claim) -> Ledger:
    try:
        if step == "reserve" and not ledger.holds(key):
            return ledger.reserve(key, claim)
        if step == "commit" and key in ledger.reserved:
            return ledger.commit(key, claim)
    except LedgerFull:
        return ledger
    return ledger.release(key) if step == "release" else ledger


@given(steps, st.sampled_from("abcd"), st.integers(0, 200))
def test_a_wider_claim_fits_or_changes_nothing(
    steps: list[tuple[str, str, Claim]], key: str, wider: int
) -> None:
    ledger = Ledger(budget_bytes=150, context_bytes=20)
    for step in steps:
        ledger = act(ledger, *step)
    if key not in ledger.committed:
        return
    before = ledger.committed[key].workspace_bytes
    try:
        widened = ledger.widen(key, wider)
    except LedgerFull:
        assert wider > before
        return
    assert widened.free_bytes >= 0
    assert widened.workspace_bytes >= wider
    assert widened.widen(key, before) == ledger
    over = widened.with_budget(0)  # less always fits, whatever the budget became
    assert over.widen(key, 0).used_bytes <= over.used_bytes


@given(steps)
def test_never_over_budget(steps: list[tuple[str, str, Claim]]) -> None:
    ledger = Ledger(budget_bytes=150, context_bytes=20)
    for step in steps:
        ledger = act(ledger, *step)
        assert 0 <= ledger.free_bytes <= 130
        terms = (
            ledger.context_bytes + ledger.weights_bytes + ledger.workspace_bytes
            + ledger.graph_pool_bytes + ledger.private_bytes + ledger.load_transient_bytes
        )  # fmt: skip
        assert terms == ledger.used_bytes


@given(steps)
def test_releasing_all_gives_back_all(steps: list[tuple[str, str, Claim]]) -> None:
    empty = Ledger(budget_bytes=150, context_bytes=20)
    ledger = empty
    for step in steps:
        ledger = act(ledger, *step)
    for key in "abcd":
        ledger = ledger.release(key)
    assert ledger == empty


@given(steps, claims)
def test_a_release_gives_back_exactly(steps: list[tuple[str, str, Claim]], claim: Claim) -> None:
    ledger = Ledger(budget_bytes=150)
    for step in steps:
        ledger = act(ledger, *step)
    try:
        grown = ledger.reserve("new", claim)
    except LedgerFull as error:
        refused = error.details
    else:
        refused = {}
        assert grown.release("new") == ledger
    assert int(refused.get("needed_bytes", 1)) > int(refused.get("free_bytes", 0))


@given(st.lists(claims, min_size=2, max_size=4), st.randoms())
def test_the_order_of_loads_does_not_matter(some: list[Claim], random: object) -> None:
    def load(order: list[int]) -> Ledger:
        ledger = Ledger(budget_bytes=10_000)
        for index in order:
            ledger = ledger.reserve(str(index), some[index]).commit(str(index), some[index])
        return ledger

    forwards = list(range(len(some)))
    assert load(forwards) == load(forwards[::-1])
    assert load(forwards).used_bytes == load(forwards[::-1]).used_bytes


def test_only_the_largest_workspace_counts() -> None:
    ledger = Ledger(budget_bytes=100, context_bytes=5)
    ledger = ledger.reserve("a", Claim(10, 30)).commit("a", Claim(10, 30))
    ledger = ledger.reserve("b", Claim(20, 40))
    assert (ledger.used_bytes, ledger.load_transient_bytes) == (5 + 10 + 20 + 40, 20)
    ledger = ledger.commit("b", Claim(21, 20))
    assert (ledger.used_bytes, ledger.load_transient_bytes) == (5 + 10 + 21 + 30, 0)


def test_what_is_needed_for_loading_only_ends_with_it() -> None:
    ledger = Ledger(budget_bytes=100).reserve("a", Claim(40, 10, transient_bytes=40))
    assert ledger.used_bytes == 90
    assert ledger.commit("a", Claim(40, 10, transient_bytes=40)).used_bytes == 50


def test_a_refusal_has_the_numbers() -> None:
    ledger = Ledger(budget_bytes=100, context_bytes=30)
    with pytest.raises(LedgerFull, match=r"needs 71 more bytes .* 70 of its budget of 100") as full:
        ledger.reserve("a@1", Claim(71))
    assert full.value.details == {"needed_bytes": "71", "free_bytes": "70", "budget_bytes": "100"}


def test_a_measurement_beyond_the_budget_is_refused_and_changes_nothing() -> None:
    ledger = Ledger(budget_bytes=100).reserve("a", Claim(60))
    with pytest.raises(LedgerFull):
        ledger.commit("a", Claim(101))
    assert ledger.used_bytes == 60


def test_misuse_is_an_error() -> None:
    ledger = Ledger(budget_bytes=100).reserve("a", Claim(1))
    with pytest.raises(ValueError, match="holds bytes already"):
        ledger.reserve("a", Claim(1))
    with pytest.raises(KeyError, match="no reservation"):
        ledger.commit("b", Claim(1))
    with pytest.raises(ValueError, match="negative"):
        Claim(-1)


def test_a_ledger_says_how_full_it_is_and_who_holds_it() -> None:
    gib = 2**30
    ledger = Ledger(8 * gib, context_bytes=gib // 2)
    assert repr(ledger) == "<Ledger 0.5 of 8.0 GiB: context 0.5>"
    assert repr(Ledger(8 * gib)) == "<Ledger 0.0 of 8.0 GiB: empty>"
    claim = Claim(2 * gib, workspace_bytes=gib)
    full = ledger.reserve("a@1", claim).commit("a@1", claim).reserve("b@1", Claim(gib))
    expected = "4.5 of 8.0 GiB: context 0.5, weights 2.0, workspace 1.0, loads 1.0"
    assert repr(full) == f"<Ledger {expected}; a@1; loading b@1>"

"""One worker in a plan: the kept sums never say otherwise than the replicas they are sums of."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.proposed_worker import (
    ProposedWorker,
    candidate,
    size_of,
    total_bytes,
)
from control_plane.types.footprint import Footprint
from control_plane.types.snapshot import OutstandingCalls
from tests.unit.control_plane.fleets import key, replica, worker
from yolopool.vocabulary import ReplicaState

SIZES = st.builds(Footprint, st.integers(0, 40), st.integers(0, 20), st.integers(0, 10))


@st.composite
def workers(draw: st.DrawFn) -> ProposedWorker:
    states = [s for s in ReplicaState if s is not ReplicaState.RELEASING]
    held = []
    for name in sorted(draw(st.sets(st.sampled_from("abcd")))):
        size = draw(SIZES)
        one = replica(
            name,
            size.weights_bytes,
            size.workspace_bytes,
            state=draw(st.sampled_from(states)),
            pinned=draw(st.booleans()),
        )
        held.append(replace(one, footprint=size if draw(st.booleans()) else None))
    tier = draw(st.sampled_from([0, 150]))
    max_hot = draw(st.sampled_from([0, 0, 2]))
    return ProposedWorker(worker("w", 100, held, tier=tier, max_hot=max_hot), {})


@given(workers(), SIZES)
def test_free_bytes_are_the_budget_less_what_is_there(one: ProposedWorker, size: Footprint) -> None:
    for _ in range(2):
        leaving = [r for k, r in one.leaving.items() if k not in one.released_now]
        held = total_bytes([*one.replicas.values(), *leaving])
        assert one.free_bytes == one.info.ledger.budget_bytes - one.base_bytes - held
        one.assign(key("new"), size, pinned=False)
    one.release(key("new"))
    assert key("new") in one.leaving
    assert key("new") not in one.replicas


@given(workers(), SIZES, st.booleans())
def test_what_fits_still_fits_once_others_have_left(
    one: ProposedWorker, size: Footprint, pinned: bool
) -> None:
    if one.fits(size, pinned=pinned):
        everything = list(one.replicas)
        assert one.fits(size, pinned=pinned, without=everything)
        assert one.fits(size, pinned=pinned, after_leaving=True)
        assert one.fits_empty(size)


@given(workers(), SIZES)
def test_the_quick_no_is_never_wrong(one: ProposedWorker, size: Footprint) -> None:
    """`fits` asks the sums first; with `without` given it always looks at each replica."""
    slow = one.fits(size, without=[key("nobody")])
    assert one.fits(size) == slow
    more = [*one.replicas.values(), candidate(size, pinned=False)]
    hot = total_bytes(more) <= one.info.ledger.budget_bytes - one.fixed_bytes
    if not one.info.ledger.max_hot:
        assert one.fits_hot(size) == hot


def test_the_worker_is_copied_before_it_is_changed() -> None:
    info = worker("w", replicas=[replica("a")])
    one = ProposedWorker(info, {})
    one.pin(key("a"), pinned=True)
    one.assign(key("b"), Footprint(1, 1), pinned=False)
    assert info.replicas == {key("a"): replica("a")}
    assert set(one.replicas) == {key("a"), key("b")}


def test_a_failed_load_takes_nothing_and_may_be_tried_again() -> None:
    one = ProposedWorker(worker("w", replicas=[replica("a", state=ReplicaState.FAILED)]), {})
    assert size_of(one.replicas[key("a")]) == Footprint(0, 0)
    assert one.free_bytes == 100
    assert not one.holds(key("a"))


def test_calls_of_this_control_plane_count_before_the_worker_reports_them() -> None:
    used = replica("a", used=5.0, outstanding=1)
    calls = {("w", key("a")): OutstandingCalls(2, foreign=1, last_used_unix_s=9.0)}
    info = worker("w", replicas=[used])
    assert ProposedWorker(info, {}).outstanding(used) == 1
    assert ProposedWorker(info, calls).outstanding(used) == 3
    assert ProposedWorker(info, calls).last_used(used) == 9.0

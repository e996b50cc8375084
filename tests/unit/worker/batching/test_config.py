"""When a ticket is due, and the sizes of passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import a_ticket, filled, numbers
from worker.batching.config import BatchingConfig, due_at


@pytest.mark.parametrize(
    ("batching", "sizes"),
    [
        (BatchingConfig(4), (1, 2, 3, 4)),
        (BatchingConfig(8, preferred_sizes=(4, 8)), (1, 2, 3, 4, 8)),
        (BatchingConfig(8, preferred_sizes=(2, 4)), (1, 2, 4)),
        (BatchingConfig(4, fixed=True), (4,)),
    ],
)
def test_the_sizes_that_a_pass_may_have(batching: BatchingConfig, sizes: tuple[int, ...]) -> None:
    assert batching.sizes == sizes
    seen = set()
    for waiting in range(1, 2 * batching.max_batch):
        batch = filled([a_ticket(n, batching=batching) for n in range(waiting)]).next_batch(0).batch
        assert batch is not None
        seen.add(batch.images)
    assert seen == set(sizes)


@pytest.mark.parametrize(("given_s", "rounded_up_s"), [(30.0, 30.1), (120.0, 121.0), (9.5, 9.51)])
def test_a_deadlines_rounding_changes_no_order(given_s: float, rounded_up_s: float) -> None:
    first = a_ticket(0, deadline=rounded_up_s)
    second = a_ticket(1, deadline=0.001 + given_s, arrived=0.001)
    assert numbers(filled([second, first]).next_batch(0.01).batch) == [0, 1]


@given(st.floats(0.001, 1e6), st.floats(0.0, 1e6))
def test_all_is_due_before_its_deadline_and_the_shorter_not_later(left: float, more: float) -> None:
    assert due_at(left, 0.0) <= left
    assert due_at(left, 0.0) <= due_at(left + more, 0.0)
    assert due_at(left, 0.0) >= 0.9 * left

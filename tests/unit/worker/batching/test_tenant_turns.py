"""Tenants of one priority take turns by weight: no backlog of one delays another."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import FOREVER, SQUARE, a_ticket, filled, numbers, taking
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BULK, NORMAL, BatchingConfig
from worker.batching.queue import Ticket, TicketQueue
from worker.batching.tenant_turns import TenantTurns
from yolopool.errors import QueueFull

ONE = BatchingConfig(1)


def of_tenant(tenant: str, number: int, version: str = "m@1", **fields: float) -> Ticket[str]:
    weight = fields.pop("weight", 1.0)
    ticket = a_ticket(number, version, batching=ONE, deadline=fields.pop("deadline", FOREVER))
    return changed(ticket, tenant=tenant, weight=weight)


def changed(ticket: Ticket[str], **changes: object) -> Ticket[str]:
    fields = {name: getattr(ticket, name) for name in Ticket.__dataclass_fields__}
    return Ticket(**{**fields, **changes})


works = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8)


@given(works, works, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.integers(2, 80))
def test_the_bound_of_start_time_fair_queueing(
    a_s: list[float], b_s: list[float], a_weight: float, b_weight: float, passes: int
) -> None:
    """Two always wait. Over any interval |W_a / w_a - W_b / w_b| <= l_a / w_a + l_b / w_b."""
    turns, weights = TenantTurns(), {"a": a_weight, "b": b_weight}
    work = {"a": itertools.cycle(a_s), "b": itertools.cycle(b_s)}
    bound = max(a_s) / a_weight + max(b_s) / b_weight
    gaps = [0.0]
    for number in range(passes):
        chosen = turns.choose({"a": (1.0, number), "b": (2.0, number)})
        seconds = next(work[chosen])
        turns.charge(chosen, seconds, weights[chosen])
        gaps.append(gaps[-1] + seconds / weights[chosen] * (1 if chosen == "a" else -1))
    assert max(gaps) - min(gaps) <= bound + 1e-9


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.floats(0.5, 4.0))
def test_a_backlog_delays_another_tenant_by_the_pass_that_was_begun_alone(
    backlog: int, pass_s: float, weight: float
) -> None:
    queue = filled(
        [of_tenant("b", n, weight=weight, deadline=5.0 + n) for n in range(backlog)],
        estimates=taking(m=pass_s),
    )
    assert numbers(queue.next_batch(0.0).batch) == [0]
    queue.add(of_tenant("a", 1000), 0.0, 0.0)  # it is due last of all
    assert numbers(queue.next_batch(0.0).batch) == [1000]


def test_turns_are_by_weight_and_whoever_is_alone_has_them_all() -> None:
    tickets = [of_tenant("a", n, weight=3.0) for n in range(90)]
    tickets += [of_tenant("b", 100 + n) for n in range(30)]
    queue = filled(tickets, estimates=taking(m=0.1))
    ran = [queue.next_batch(0.0).batch for _ in range(40)]
    shares = Counter(batch.tickets[0].tenant for batch in ran if batch is not None)
    assert abs(shares["a"] - 30) <= 2
    rest = [queue.next_batch(0.0).batch for _ in range(80)]
    assert all(batch is not None for batch in rest)  # the device never waits


def test_who_was_away_has_no_turns_saved_up() -> None:
    queue = filled([of_tenant("a", n) for n in range(60)], estimates=taking(m=1.0))
    for _ in range(20):
        queue.next_batch(0.0)
    for n in range(40):
        queue.add(of_tenant("b", 100 + n), 0.0, 0.0)
    ran = [queue.next_batch(0.0).batch for _ in range(10)]
    shares = Counter(batch.tickets[0].tenant for batch in ran if batch is not None)
    assert abs(shares["a"] - shares["b"]) <= 1


def test_the_wait_of_a_tenant_counts_of_others_what_their_turns_let_go_first() -> None:
    queue = filled([of_tenant("b", n) for n in range(50)], estimates=taking(m=1.0))
    for tenant, weight, wait_s in (("b", 1.0, 51.0), ("a", 1.0, 2.0), ("a", 0.5, 3.0)):
        ask = AdmissionRequest("m@1", NORMAL, FOREVER, 0.0, ONE, SQUARE, tenant, weight)
        assert queue.wait_s(ask) == pytest.approx(wait_s)


def test_a_full_queue_of_one_tenant_does_not_refuse_another() -> None:
    queue = filled([of_tenant("b", n) for n in range(7)], capacity=8)
    with pytest.raises(QueueFull):
        queue.add(of_tenant("b", 7), 0.0, 0.0)
    for n in range(4):
        queue.add(of_tenant("a", 20 + n), 0.0, 0.0)
    with pytest.raises(QueueFull):
        queue.add(of_tenant("a", 24), 0.0, 0.0)  # its part: half of eight
    assert len(queue) == 11


def test_the_limit_of_a_version_is_parted_likewise() -> None:
    small = BatchingConfig(1, queue_capacity=2)
    queue = filled([changed(of_tenant("b", n), batching=small) for n in range(2)], capacity=64)
    queue.add(changed(of_tenant("a", 5), batching=small), 0.0, 0.0)
    with pytest.raises(QueueFull):
        queue.add(changed(of_tenant("a", 6), batching=small), 0.0, 0.0)


tenants = st.sampled_from(["a", "b", "c"])


@given(
    st.integers(1, 12),
    st.lists(st.tuples(tenants, st.sampled_from([NORMAL, BULK]), st.booleans()), max_size=120),
)
def test_places_are_bounded_and_no_tenant_without_any_is_refused(
    capacity: int, steps: list[tuple[str, int, bool]]
) -> None:
    queue: TicketQueue[str] = filled([], capacity=capacity)
    held: Counter[str] = Counter()
    for number, (tenant, priority, takes) in enumerate(steps):
        if takes and len(queue):
            batch = queue.next_batch(0.0).batch
            assert batch is not None
            held[batch.tickets[0].tenant] -= 1
            continue
        try:
            queue.add(changed(of_tenant(tenant, number), priority=priority), 0.0, 0.0)
        except QueueFull:
            assert held[tenant] > 0
        else:
            held[tenant] += 1
    assert len(queue) == held.total() <= 2 * capacity + 3
    while queue.next_batch(0.0).batch is not None:
        pass
    assert len(queue) == 0
    assert queue.wait_s() == 0.0

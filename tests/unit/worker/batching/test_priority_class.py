"""Tenants share a pass where it has room, pay for it in proportion, and make nobody late."""

from tests.unit.worker.batching.test_tenant_turns import changed, of_tenant
from tests.unit.worker.batching.tickets import SQUARE, a_ticket, filled, numbers, taking
from worker.batching.config import BatchingConfig
from worker.batching.estimates import LatencyEstimates
from worker.batching.lane import Lane
from worker.batching.priority_class import PriorityClass


def test_tenants_share_a_pass_that_has_room_and_pay_for_it_in_proportion() -> None:
    four = BatchingConfig(4)
    tickets = [changed(of_tenant("a", n), batching=four) for n in range(2)]
    tickets += [changed(of_tenant("b", 10 + n), batching=four) for n in range(5)]
    queue = filled(tickets, estimates=taking(m=0.1))
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 10, 11]
    assert numbers(queue.next_batch(0.0).batch) == [12, 13, 14]


def test_company_never_makes_a_pass_late() -> None:
    four = BatchingConfig(4)
    estimates = taking(m=0.1)
    estimates.record("m@1", SQUARE, 1, 0.1)
    tight = changed(of_tenant("a", 0, deadline=0.25), batching=four)
    queue = filled(
        [tight, *[changed(of_tenant("b", n), batching=four) for n in range(1, 5)]], 9, estimates
    )
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]  # three would take until 0.33


def test_others_fill_a_pass_that_waits_for_company() -> None:
    patient = BatchingConfig(2, max_delay_s=5.0)
    queue = filled([changed(of_tenant("a", 0), batching=patient)])
    assert queue.next_batch(0.0).batch is None
    queue.add(changed(of_tenant("b", 1), batching=patient), 0.0, 0.0)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


def test_a_pass_of_several_tenants_is_paid_by_images() -> None:
    """A pays half of the first pass, so it goes before B, which paid all of the second."""
    two = BatchingConfig(2)
    tickets = [changed(of_tenant("a", 0), batching=two)]
    tickets += [changed(of_tenant("b", n), batching=two) for n in range(1, 6)]
    queue = filled(tickets, estimates=taking(m=0.1))
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]
    assert numbers(queue.next_batch(0.0).batch) == [2, 3]
    queue.add(changed(of_tenant("a", 9), batching=two), 0.0, 0.0)
    assert numbers(queue.next_batch(0.0).batch)[0] == 9


def test_it_has_no_empty_lanes_and_forgets_who_is_gone() -> None:
    lanes, estimates = PriorityClass(lambda _: 1.0), LatencyEstimates()
    ticket = a_ticket(1)
    lane = Lane(ticket.priority, ticket.version, SQUARE, ticket.batching, "a")
    lanes.put(lane)
    lane.add(ticket.key, estimates)
    lanes.drop_if_empty(lane)
    assert list(lanes) == [lane]
    lane.pop(1, estimates)
    lanes.drop_if_empty(lane)
    assert list(lanes) == []
    assert lanes.tenants == {}

"""Tenants share a pass where it has room, pay for it in proportion, and make nobody late."""

from collections.abc import Iterator

import pytest

from tests.unit.worker.batching.test_tenant_turns import changed, of_tenant
from tests.unit.worker.batching.tickets import FOREVER, SQUARE, a_ticket, filled, numbers
from worker.batching.config import BatchingConfig
from worker.batching.estimates import LatencyEstimates
from worker.batching.lane import Lane
from worker.batching.priority_class import PriorityClass
from worker.batching.queue import Ticket


def measured(*seconds: float) -> LatencyEstimates:
    """Passes of 1, 2, ... images take so long."""
    estimates = LatencyEstimates()
    for size, took_s in enumerate(seconds, 1):
        for _ in range(2):
            estimates.record("m@1", SQUARE, size, took_s)
    return estimates


def waiting(tenant: str, *tickets: int, deadline: float = FOREVER) -> list[Ticket[str]]:
    four = BatchingConfig(4)
    return [changed(of_tenant(tenant, n, deadline=deadline), batching=four) for n in tickets]


def test_others_join_a_pass_that_has_room_where_it_costs_little() -> None:
    flat = measured(0.1, 0.11, 0.12, 0.13)
    queue = filled([*waiting("a", 0, 1), *waiting("b", *range(10, 15))], estimates=flat)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 10, 11]
    assert numbers(queue.next_batch(0.0).batch) == [12, 13, 14]


def test_others_do_not_make_a_pass_much_longer() -> None:
    """Else who has a backlog would delay by two passes: its own, and the one it joins."""
    queue = filled(
        [*waiting("a", 0), *waiting("b", *range(10, 14))], estimates=measured(0.1, 0.2, 0.3, 0.4)
    )
    assert numbers(queue.next_batch(0.0).batch) == [0]
    some = measured(0.1, 0.119, 0.3, 0.4)
    queue = filled([*waiting("a", 0), *waiting("b", *range(10, 14))], estimates=some)
    assert numbers(queue.next_batch(0.0).batch) == [0, 10]


def test_company_never_makes_a_pass_late() -> None:
    flat = measured(0.1, 0.11, 0.12, 0.2)
    tight = waiting("a", 0, deadline=0.125)  # two take 0.121 with the margin, three 0.132
    queue = filled([*tight, *waiting("b", 1, 2, 3, 4)], estimates=flat)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


def test_others_fill_a_pass_that_waits_for_company() -> None:
    patient = BatchingConfig(2, max_delay_s=5.0)
    queue = filled([changed(of_tenant("a", 0), batching=patient)])
    assert queue.next_batch(0.0).batch is None
    queue.add(changed(of_tenant("b", 1), batching=patient), 0.0, 0.0)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


def test_a_dispatch_does_not_compare_every_tenant_with_every_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, beside = [], PriorityClass.beside

    def counted(self: PriorityClass, lane: Lane) -> Iterator[Lane]:
        looks.append(lane.tenant)
        return beside(self, lane)

    monkeypatch.setattr(PriorityClass, "beside", counted)
    queue = filled([ticket for n in range(30) for ticket in waiting(f"t{n}", n, 100 + n)])
    assert len(numbers(queue.next_batch(0.0).batch)) == 4
    assert looks == ["t0"]  # who goes next, for company


def test_a_pass_of_several_tenants_is_paid_by_images() -> None:
    """A pays half of the first pass, so it goes before B, which paid all of the second."""
    two = BatchingConfig(2)
    tickets = [changed(of_tenant("a", 0), batching=two)]
    tickets += [changed(of_tenant("b", n), batching=two) for n in range(1, 6)]
    queue = filled(tickets, estimates=measured(0.1, 0.11))
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

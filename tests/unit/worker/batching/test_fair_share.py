"""Versions of one priority share the device by time, and only then by deadline."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import FOREVER, SQUARE, a_ticket, filled, taking
from worker.batching.admission import AdmissionRequest
from worker.batching.config import NORMAL, BatchingConfig
from worker.batching.fair_share import SLACK_S, FairShare


def test_another_versions_flood_delays_by_no_more_than_a_fair_share() -> None:
    one = BatchingConfig(1)
    flood = [a_ticket(n, "a@1", batching=one) for n in range(100)]
    queue = filled(flood, estimates=taking(a=1.0, b=1.0))
    assert queue.wait_s(
        AdmissionRequest("b@1", NORMAL, FOREVER, 0.0, one, SQUARE)
    ) == pytest.approx(2.0)
    assert queue.wait_s(
        AdmissionRequest("a@1", NORMAL, FOREVER, 0.0, one, SQUARE)
    ) == pytest.approx(101.0)


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_two_versions_that_always_wait_have_equal_time(
    a_s: float, b_s: float, a_due: float, b_due: float
) -> None:
    one = BatchingConfig(1)
    queue = filled([], estimates=taking(a=a_s, b=b_s))
    count = itertools.count()
    given_s = dict.fromkeys(("a@1", "b@1"), 0.0)
    for version, more in (("a@1", a_due), ("b@1", b_due)):
        queue.add(a_ticket(next(count), version, deadline=1000 + more, batching=one), 0.0, 0.0)
    for _ in range(60):
        batch = queue.next_batch(0.0).batch
        assert batch is not None
        (ticket,) = batch.tickets
        given_s[ticket.version] += a_s if ticket.version == "a@1" else b_s
        queue.add(replace(ticket, number=next(count)), 0.0, 0.0)
        # Once both have waited, neither is further ahead than the slack and a pass.
        assert abs(given_s["a@1"] - given_s["b@1"]) <= SLACK_S + max(a_s, b_s) + 1e-9


@pytest.mark.parametrize(("share", "is_held_back"), [(0.45, False), (0.9, True)])
def test_only_who_takes_more_than_half_of_the_device_waits_for_others(
    share: float, is_held_back: bool
) -> None:
    shares, urgent_first = FairShare(), {"a@1": (1.0, 0), "b@1": (2.0, 1)}
    ran = []
    for number in range(30):
        ran.append(shares.choose(urgent_first, number * 0.01 / share))
        shares.charge(ran[-1], 0.01)
    assert ("b@1" in ran) is is_held_back


def test_who_was_away_has_no_time_saved_up() -> None:
    one = BatchingConfig(1)
    queue = filled(
        [a_ticket(n, "a@1", batching=one) for n in range(60)], estimates=taking(a=1, b=1)
    )
    for _ in range(20):
        queue.next_batch(0.0)
    for n in range(100, 140):
        queue.add(a_ticket(n, "b@1", deadline=5.0, batching=one), 0.0, 0.0)
    ran = [queue.next_batch(0.0).batch for _ in range(10)]
    shares = Counter(batch.version for batch in ran if batch is not None)
    assert abs(shares["a@1"] - shares["b@1"]) <= 2

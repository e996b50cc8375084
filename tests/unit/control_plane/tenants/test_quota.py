"""What a tenant may take: each limit at its bound and beyond, and when it may take more."""

import pytest

from control_plane.tenants.quota import DAY_S, MIN_AGAIN_S, DayCount, Quota
from control_plane.types.access.tenant import Tenant, TenantLimits
from yolopool.errors import TenantConcurrency, TenantDay, TenantRate

NOON = 20_000 * DAY_S + DAY_S / 2


def quota(share: float = 1.0, **limits: float) -> Quota:
    made = Quota()
    made.set(Tenant("t", limits=TenantLimits(**limits)), share, 0.0)  # type: ignore[arg-type]
    return made


def test_without_limits_all_come_in_and_are_counted() -> None:
    free = quota()
    for _ in range(100):
        free.begin(0.0, NOON, 10)
    assert (free.own, free.asked, free.open) == (DayCount(100, 1000), 100, 100)


def test_the_rate_says_when_the_next_may_come() -> None:
    limited = quota(requests_per_s=2.0)
    limited.begin(0.0, NOON, 1)
    limited.begin(0.0, NOON, 1)
    with pytest.raises(TenantRate) as raised:
        limited.begin(0.1, NOON, 1)
    retry_s = raised.value.retry_after_s or 0.0
    assert retry_s == pytest.approx(0.4)
    limited.begin(0.1 + retry_s, NOON, 1)
    assert limited.asked == 4
    assert limited.own.images == 3  # who was refused took nothing


def test_as_many_wait_for_answers_as_may() -> None:
    limited = quota(concurrent_requests=2)
    limited.begin(0.0, NOON, 1)
    limited.begin(0.0, NOON, 1)
    with pytest.raises(TenantConcurrency) as raised:
        limited.begin(0.0, NOON, 1)
    assert raised.value.retry_after_s
    limited.end(0.2)
    limited.begin(0.0, NOON, 1)


def test_who_waits_for_answers_of_many_does_not_ask_a_thousand_times_a_second() -> None:
    limited = quota(concurrent_requests=200)
    for _ in range(200):
        limited.begin(0.0, NOON, 1)
    with pytest.raises(TenantConcurrency) as raised:
        limited.begin(0.0, NOON, 1)
    assert raised.value.retry_after_s == MIN_AGAIN_S


def test_a_part_of_the_concurrency_is_never_none() -> None:
    assert [quota(part, concurrent_requests=4).concurrency for part in (0.01, 0.5, 0.6, 1.0)] == [
        1, 2, 3, 4,
    ]  # fmt: skip


@pytest.mark.parametrize("limits", [{"images_per_day": 3}, {"bytes_per_day": 30}])
def test_a_day_ends_at_midnight_utc_and_counts_what_others_let_in(limits: dict[str, int]) -> None:
    limited = quota(**limits)
    limited.begin(0.0, NOON, 10)
    limited.told = DayCount(1, 10)
    limited.begin(0.0, NOON, 10)
    with pytest.raises(TenantDay) as raised:
        limited.begin(0.0, NOON + 60, 10)
    assert raised.value.retry_after_s == DAY_S / 2 - 60
    limited.begin(0.0, NOON + DAY_S / 2, 10)
    assert limited.own == DayCount(1, 10)


def test_an_image_larger_than_what_is_left_of_the_day_is_refused_and_a_smaller_comes_in() -> None:
    limited = quota(bytes_per_day=100)
    limited.begin(0.0, NOON, 60)
    with pytest.raises(TenantDay):
        limited.begin(0.0, NOON, 41)
    limited.begin(0.0, NOON, 40)

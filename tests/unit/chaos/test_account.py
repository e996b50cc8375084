"""The account of a scenario: what counts as failed, lost, wrong, and when a pool has recovered."""

import pytest

from tests.chaos.account import OK, Attempt, Request, account, recovery

GONE = "UNAVAILABLE"


def request(number: int, sent_s: float, *outcomes: str, right: bool = True) -> Request:
    """Attempts of a tenth of a second, one after the other."""
    attempts = tuple(
        Attempt(f"door-{index}", sent_s + index / 10, sent_s + (index + 1) / 10, outcome)
        for index, outcome in enumerate(outcomes)
    )
    return Request(number, "m", sent_s, attempts, right)


def test_every_request_is_in_one_column() -> None:
    requests = [
        request(0, 0.0, OK),
        request(1, 1.0, GONE, OK),
        request(2, 2.0, GONE, GONE),
        request(3, 3.0, "QUEUE_FULL"),
        request(4, 4.0, OK, right=False),
        request(5, 5.0),
    ]
    one = account(requests, struck_s=0.5, end_s=20.0, quiet_s=5.0)
    assert (one.sent, one.ok, one.lost, one.wrong) == (6, 3, 1, 1)
    assert one.failed == {GONE: 1, "QUEUE_FULL": 1}
    assert one.bare_failed == {GONE: 2, "QUEUE_FULL": 1}
    assert one.retried_outside == 2
    assert one.sent == one.ok + sum(one.failed.values()) + one.lost
    assert one.worst_s == pytest.approx(0.2)


def test_nothing_sent_is_an_account_too() -> None:
    one = account([], struck_s=0.0, end_s=5.0, quiet_s=5.0)
    assert (one.sent, one.lost, one.worst_s, one.recovery_s) == (0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("failed_at", "end_s", "expected"),
    [
        ([], 20.0, 0.0),
        ([3.0], 20.0, 0.0),  # before the fault
        ([11.0, 12.0], 20.0, 2.0),
        ([11.0, 15.9], 30.0, 5.9),  # not quiet for long enough in between
        ([11.0, 17.0], 30.0, 1.0),  # the second is of something else
        ([17.0], 30.0, 7.0),  # it may take a while until callers feel it
        ([11.0, 18.0], 22.0, 1.0),
        ([11.0], 15.0, None),
        ([], 12.0, None),
    ],
)
def test_recovery_is_the_last_failure_before_quiet(
    failed_at: list[float], end_s: float, expected: float | None
) -> None:
    failures = [Attempt("door", at - 0.1, at, GONE) for at in failed_at]
    found = recovery(failures, struck_s=10.0, end_s=end_s, quiet_s=5.0)
    assert found == (None if expected is None else pytest.approx(expected))

"""What became of every request, in one row: pure, from the records of the callers.

Two views of the same requests: `bare`, as a caller sees them who never tries again, and as one
sees them who on UNAVAILABLE asks once more at another door.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OK = "OK"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call at one door. Times in seconds on the callers' clock; `outcome` OK or a reason."""

    door: str
    sent_s: float
    ended_s: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one caller; without attempts it was sent and never heard of again."""

    number: int
    model: str
    sent_s: float
    attempts: tuple[Attempt, ...] = ()
    right: bool = True  # of an answered one: the boxes are those of its own picture

    @property
    def outcome(self) -> str:
        """Of the last attempt; empty: none."""
        return self.attempts[-1].outcome if self.attempts else ""

    @property
    def latency_s(self) -> float:
        """Over all attempts; 0 without an outcome."""
        return self.attempts[-1].ended_s - self.sent_s if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """All requests of a scenario. Recoveries are in seconds from the fault to the last failure
    after which none came for the quiet time (0: nothing failed, None: that was not seen).
    """

    sent: int
    ok: int
    failed: dict[str, int]
    bare_failed: dict[str, int]
    retried_outside: int
    wrong: int
    lost: int
    median_s: float
    worst_s: float
    recovery_s: float | None
    bare_recovery_s: float | None


def account(requests: Sequence[Request], struck_s: float, end_s: float, quiet_s: float) -> Account:
    """Accounts for requests sent until `end_s` around a fault at `struck_s`."""
    ended = [one for one in requests if one.attempts]
    latencies = sorted(one.latency_s for one in ended)
    failed = [one.attempts[-1] for one in ended if one.outcome != OK]
    bare = [one.attempts[0] for one in ended if one.attempts[0].outcome != OK]
    return Account(
        sent=len(requests),
        ok=sum(one.outcome == OK for one in ended),
        failed=_reasons(failed),
        bare_failed=_reasons(bare),
        retried_outside=sum(len(one.attempts) > 1 for one in ended),
        wrong=sum(one.outcome == OK and not one.right for one in ended),
        lost=len(requests) - len(ended),
        median_s=latencies[len(latencies) // 2] if latencies else 0.0,
        worst_s=max(latencies, default=0.0),
        recovery_s=recovery(failed, struck_s, end_s, quiet_s),
        bare_recovery_s=recovery(bare, struck_s, end_s, quiet_s),
    )


def recovery(
    failures: Iterable[Attempt], struck_s: float, end_s: float, quiet_s: float
) -> float | None:
    """Seconds from the fault to the first moment after which nothing failed for `quiet_s`."""
    moments = sorted(one.ended_s for one in failures if one.ended_s >= struck_s)
    moment = struck_s
    for failure in moments:
        if failure - moment >= quiet_s and moment > struck_s:
            break
        moment = failure
    return moment - struck_s if end_s - moment >= quiet_s else None


def _reasons(failures: Iterable[Attempt]) -> dict[str, int]:
    return dict(Counter(one.outcome for one in failures).most_common())

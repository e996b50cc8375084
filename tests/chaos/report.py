"""What a scenario hands back: accounts of the callers, what was measured, what held. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from benchmarks.harness import results
from benchmarks.harness.results import Check, Row
from tests.chaos.account import Account

# Who called.
VIA, DIRECT = "through control planes", "at the workers"
# The check that tells what of the registry is lost.
REGISTRY = "the registry is as before"


@dataclass(frozen=True, slots=True)
class Report:
    """Accounts by who called, what was measured beside them, and what held; `words` are the last
    of all processes, where something did not hold.
    """

    scenario: str
    seed: int
    accounts: dict[str, Account]
    retried_inside: int
    seconds: dict[str, float]
    checks: tuple[Check, ...]
    words: str = ""

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(one for one in self.checks if not one.passed)

    def rows(self) -> tuple[Row, ...]:
        """A row a kind of caller."""
        return tuple(self._row(who, one) for who, one in self.accounts.items())

    def text(self) -> str:
        """For people."""
        lines = [f"{self.scenario}, seed {self.seed}", results.table(self.rows())]
        lines += [f"{'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}" for c in self.checks]
        return "\n".join(lines)

    def _row(self, who: str, one: Account) -> Row:
        reasons = {"failed": _words(one.failed), "bare_failed": _words(one.bare_failed)}
        inside = self.retried_inside if who == VIA else None
        lost = [check.detail for check in self.failed if check.name == REGISTRY]
        registry = {"registry_lost": "; ".join(lost) or "none"}
        row = {**asdict(one), **reasons, "retried_inside": inside, **registry}
        return {"scenario": self.scenario, "callers": who, **row, **self.seconds}


def judged(
    accounts: Mapping[str, Account], allowed: Collection[str], deadline_s: float
) -> list[Check]:
    """What every scenario demands of its callers; `allowed` reasons may fail those who come
    through control planes, since nobody is there to ask.
    """
    checks = []
    for who, one in accounts.items():
        borne = allowed if who == VIA else ()
        failed = {reason: count for reason, count in one.failed.items() if reason not in borne}
        late = one.worst_s > deadline_s + 1.0
        recovered = "never" if one.recovery_s is None else f"{one.recovery_s:.1f} s"
        checks += [
            Check(f"{who}: every request has an outcome", one.lost == 0, f"{one.lost} lost"),
            Check(f"{who}: no wrong boxes", one.wrong == 0, f"{one.wrong} of {one.ok}"),
            Check(f"{who}: loaded models answer", not failed, _words(failed) or "none failed"),
            Check(f"{who}: deadlines end requests", not late, f"worst {one.worst_s:.2f} s"),
            Check(f"{who}: failures end", one.recovery_s is not None, recovered),
        ]
    return checks


def _words(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())

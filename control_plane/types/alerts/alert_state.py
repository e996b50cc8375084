"""One alert about one subject, from the first look that found its condition to its end. Pure.

What was told to whom is kept with it, so that whoever leads next goes on from there.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

# Ended alerts are listed for so long.
ENDED_KEPT_S = 3600.0


class Stage(StrEnum):
    PENDING = "PENDING"  # its condition holds, and not yet long enough
    FIRING = "FIRING"
    RESOLVED = "RESOLVED"


class Told(StrEnum):
    """What a receiver was told."""

    TRIED = "TRIED"  # it was called and did not take it
    FIRING = "FIRING"
    RESOLVED = "RESOLVED"


class Look(StrEnum):
    """What a look at the condition found."""

    HOLDS = "HOLDS"
    ENDED = "ENDED"
    UNKNOWN = "UNKNOWN"  # too little is known yet: nothing changes


@dataclass(frozen=True, slots=True)
class AlertState:
    """Times are Unix seconds, 0: not yet. `by`: who ended it by hand; while `held` its condition
    has not ended since. `told`: by receiver. `changed_unix_s` grows with each change.
    """

    rule: str
    subject: str
    stage: Stage
    since_unix_s: float
    fired_unix_s: float = 0.0
    resolved_unix_s: float = 0.0
    value: float = 0.0
    threshold: float = 0.0
    by: str = ""
    held: bool = False
    told: Mapping[str, Told] = field(default_factory=dict)
    changed_unix_s: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.rule}|{self.subject}"

    @property
    def id(self) -> str:
        """The same from every control plane that goes on with this alert."""
        text = f"{self.key}|{self.since_unix_s!r}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def notified(self, receiver: str, told: Told) -> "AlertState":
        return replace(self, told={**self.told, receiver: told})

    def resolved(self, now: float, by: str = "") -> "AlertState":
        return replace(self, stage=Stage.RESOLVED, resolved_unix_s=now, by=by, held=bool(by))


def looked(
    before: AlertState | None,
    look: Look,
    key: tuple[str, str],
    value: float,
    threshold: float,
    for_s: float,
    now: float,
) -> AlertState | None:
    """The alert after a look at its condition; None: there is none. key: rule and subject."""
    if look is Look.UNKNOWN:
        return before
    if look is Look.ENDED:
        return _ended(before, now)
    if before is None or (before.stage is Stage.RESOLVED and not before.held):
        before = AlertState(*key, Stage.PENDING, now)
    measured = replace(before, value=value, threshold=threshold)
    if before.stage is Stage.PENDING and now - before.since_unix_s >= for_s:
        return replace(measured, stage=Stage.FIRING, fired_unix_s=now)
    return measured


def _ended(before: AlertState | None, now: float) -> AlertState | None:
    if before is None or before.stage is Stage.PENDING:
        return None
    if before.stage is Stage.FIRING:
        return before.resolved(now)
    if now - before.resolved_unix_s >= ENDED_KEPT_S:
        return None
    return replace(before, held=False)


def due(state: AlertState, receiver: str) -> Told | None:
    """What a receiver is to be told of an alert now; None: nothing. Of one that it was never called
    about it hears nothing once it has ended.
    """
    told = state.told.get(receiver)
    if state.stage is Stage.FIRING and told is not Told.FIRING:
        return Told.FIRING
    if state.stage is Stage.RESOLVED and told in (Told.FIRING, Told.TRIED):
        return Told.RESOLVED
    return None

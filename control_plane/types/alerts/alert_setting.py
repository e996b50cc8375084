"""What operators set about alerts: receivers, silences, thresholds by pattern. Pure and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

MAX_SETTINGS = 500
DEFAULT_RULE = "*"

One = TypeVar("One")


def name_matches(pattern: str, subject: str) -> bool:
    """Whether a pattern is of a subject; of name@version the name alone is enough."""
    return fnmatchcase(subject, pattern) or fnmatchcase(subject.partition("@")[0], pattern)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of alerts. `form`: json or slack. `severity`: the least that it is told."""

    name: str
    url: str
    form: str = "json"
    secret: str = ""
    severity: str = "warning"
    rule: str = DEFAULT_RULE
    by: str = ""
    created_unix_s: float = 0.0

    @property
    def key(self) -> str:
        return f"webhook/{self.name}"

    def after(self, old: "AlertSetting | None") -> "Webhook":
        """Set again without a secret, it keeps the one that it has."""
        keeps = isinstance(old, Webhook) and not self.secret
        return replace(self, secret=old.secret) if keeps and isinstance(old, Webhook) else self

    def takes(self, rule: str, severity: str) -> bool:
        loud = self.severity != "critical" or severity == "critical"
        return loud and fnmatchcase(rule, self.rule)


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told of alerts of `rule` about `subject`, both patterns, until a time."""

    id: str
    rule: str
    subject: str
    until_unix_s: float
    why: str = ""
    by: str = ""

    @property
    def key(self) -> str:
        return f"silence/{self.id}"

    def covers(self, rule: str, subject: str, now: float) -> bool:
        matches = fnmatchcase(rule, self.rule) and name_matches(self.subject, subject)
        return now < self.until_unix_s and matches


@dataclass(frozen=True, slots=True)
class Threshold:
    """When `rule` fires for subjects that match `pattern`; None: as the rule says. `off`: never."""

    rule: str
    pattern: str
    value: float | None = None
    for_s: float | None = None
    off: bool = False

    @property
    def key(self) -> str:
        return f"threshold/{self.rule}/{self.pattern}"

    @property
    def says_nothing(self) -> bool:
        return self.value is None and self.for_s is None and not self.off


@dataclass(frozen=True, slots=True)
class Foreign:
    """A setting of a kind that a newer release has: kept as it is."""

    key: str
    text: str


AlertSetting = Foreign | Webhook | Silence | Threshold


def settings_of(settings: Mapping[str, AlertSetting], kind: type[One]) -> list[One]:
    """Those of a kind, by key."""
    return [one for _, one in sorted(settings.items()) if isinstance(one, kind)]

"""Which requests have a line in the request log. Pure.

A rule is `WHAT=SHARE`: WHAT is `errors`, `slow:500ms` (a total of at least so long), or a pattern
of model names, SHARE a number from 0 to 1. The first rule that fits a request counts.
"""

import re
from binascii import crc32
from dataclasses import dataclass
from fnmatch import fnmatchcase

from yolopool.errors import InvalidOption

ERRORS = "errors"
_SLOW = re.compile(r"slow:(\d+(?:\.\d+)?)ms")
MAX_RULES = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """Fits errors, or requests that took at least `slow_ms`, or of models that fit `pattern`."""

    share: float
    pattern: str = ""
    slow_ms: float | None = None

    def fits(self, model: str, is_error: bool, total_ms: float) -> bool:
        if self.pattern == ERRORS:
            return is_error
        if self.slow_ms is not None:
            return total_ms >= self.slow_ms
        return fnmatchcase(model, self.pattern)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Without a rule that fits, a request has a line."""

    rules: tuple[Rule, ...] = ()

    def share(self, model: str, is_error: bool, total_ms: float) -> float:
        """The part of such requests that have a line."""
        for rule in self.rules:
            if rule.fits(model, is_error, total_ms):
                return rule.share
        return 1.0


def is_taken(request_id: str, share: float) -> bool:
    """Whether a request is among that share: the same in every process, by its id."""
    return share >= 1 or crc32(request_id.encode()) < share * 2**32


def parse(text: str) -> Sampling:
    """Reads rules, separated by commas; empty: every request has a line. Raises InvalidOption."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > MAX_RULES:
        raise InvalidOption(f"a request log has at most {MAX_RULES} rules of sampling")
    return Sampling(tuple(map(_rule, parts)))


def _rule(text: str) -> Rule:
    what, is_there, number = (part.strip() for part in text.rpartition("="))
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not is_there or not what or not 0 <= share <= 1:
        raise InvalidOption(
            f"{text!r} is no rule of sampling: give WHAT=SHARE with a share from 0 to 1, such as "
            "errors=1,slow:500ms=1,team-a/*=0.1"
        )
    if slow := _SLOW.fullmatch(what):
        return Rule(share, slow_ms=float(slow[1]))
    return Rule(share, what)

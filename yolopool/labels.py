"""Labels of versions, `line=7`, and selectors of them as kubectl writes these: `line=7,!trial`.

Pure; clients and servers follow the same rules.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from yolopool.errors import InvalidOption

MAX_LABELS = 32
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
RULE = (
    "a label is NAME=VALUE, a name of 1 to 63 and a value of 0 to 63 letters, digits, '.', '_' and "
    "'-' (in a name also '/'), beginning and ending with a letter or digit"
)
_SELECTOR_RULE = "give NAME=VALUE, NAME!=VALUE, NAME or !NAME, with commas between them"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one part of a selector asks of a label: that it has `value` (None: any) or, `negated`,
    that it has not.
    """

    name: str
    value: str | None
    negated: bool = False

    def allows(self, labels: Mapping[str, str]) -> bool:
        has = self.name in labels if self.value is None else labels.get(self.name) == self.value
        return has is not self.negated


Selector = tuple[Requirement, ...]


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels meet every requirement; `NAME!=VALUE` is also met without a label NAME."""
    return all(requirement.allows(labels) for requirement in selector)


def parse_selector(text: str) -> Selector:
    """Reads `line=7,site!=berlin,gpu,!trial`; empty: everything. Raises InvalidOption."""
    return tuple(_requirement(part.strip()) for part in text.split(",")) if text.strip() else ()


def _requirement(text: str) -> Requirement:
    for sign, negated in (("!=", True), ("==", False), ("=", False)):
        name, found, value = text.partition(sign)
        if found:
            return Requirement(_name(name.strip(), text), _value(value.strip(), text), negated)
    return Requirement(_name(text.removeprefix("!").strip(), text), None, text.startswith("!"))


def _name(name: str, text: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidOption(f"{text[:150]!r} selects no labels: {_SELECTOR_RULE}; {RULE}")
    return name


def _value(value: str, text: str) -> str:
    if not _VALUE.fullmatch(value):
        raise InvalidOption(f"{text[:150]!r} selects no labels: {_SELECTOR_RULE}; {RULE}")
    return value


def parse_changes(words: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reads `line=7` (set it) and `old-` (take it away). Raises InvalidOption."""
    put: dict[str, str] = {}
    drop: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        if sign:
            put[name] = value
        elif word.endswith("-"):
            drop.append(word.removesuffix("-"))
        else:
            raise InvalidOption(f"{word[:150]!r}: give NAME=VALUE to set a label, NAME- to drop it")
    check_labels(put)
    for name in drop:
        check_label_name(name)
    if both := put.keys() & set(drop):
        raise InvalidOption(f"{min(both)} is both set and dropped: give it once")
    return put, tuple(drop)


def check_label_name(name: str) -> str:
    """Returns the name of a label, or raises InvalidOption with the rule."""
    if not _NAME.fullmatch(name):
        raise InvalidOption(f"{name[:150]!r} is no name of a label: {RULE}")
    return name


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Returns all labels of a version, or raises InvalidOption with the rule."""
    for name, value in labels.items():
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise InvalidOption(f"{f'{name}={value}'[:150]!r} is no label: {RULE}")
    if len(labels) > MAX_LABELS:
        raise InvalidOption(f"{len(labels)} labels, and a version has at most {MAX_LABELS}")
    return dict(labels)

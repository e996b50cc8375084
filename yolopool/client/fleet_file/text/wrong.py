"""What checks of a fleet file have in common. Pure."""

import re
from collections.abc import Callable, Iterator

from yolopool.errors import YolopoolError

STORED = "sha256:"
DIGEST = re.compile(r"[0-9a-f]{64}")

# What is wrong, and at which key of the record.
Wrong = Iterator[tuple[str, str]]


def stored_digest(reference: str) -> str:
    """The digest that `sha256:...` names; empty: it is a path."""
    return reference.removeprefix(STORED) if reference.startswith(STORED) else ""


def refused(name: str, check: Callable[..., object], value: object) -> Wrong:
    """What a check that raises has against a value."""
    try:
        check(value)
    except YolopoolError as error:
        yield name, error.message

"""Who is calling. Everyone may do everything now; every call carries the answer all the same."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as logs name it."""

    name: str


ANONYMOUS = Principal("anonymous")


class CallContext(Protocol):
    """What is read of a gRPC call's context."""

    def time_remaining(self) -> float | None: ...


def principal_of(_context: CallContext) -> Principal:
    """Derives the caller from the call's context."""
    return ANONYMOUS

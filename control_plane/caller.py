"""The caller of a request. Today everyone is anonymous and may do everything."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as logs name it."""

    name: str


ANONYMOUS = Principal("anonymous")


class CallContext(Protocol):
    """The part of a gRPC context that services use."""

    def time_remaining(self) -> float | None: ...


def principal_of(_context: CallContext) -> Principal:
    """The caller, from the call's context."""
    return ANONYMOUS

"""The caller of a request: who it is, and what it may do."""

import json
from dataclasses import asdict, dataclass
from typing import Protocol

from control_plane.types.access.api_key import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `name` as logs name it: a key's id, or who a token or certificate is of.

    `grants`: patterns of the model names that it may see.
    """

    name: str
    role: Role
    grants: tuple[str, ...] = ("*",)
    tenant: str = ""


# Where nobody is asked who it is, everyone may do everything.
ANONYMOUS = Principal("anonymous", Role.ADMIN)


# What a control plane tells another of the caller whose call it forwards.
CALLER = "yolopool-caller"


def told(principal: Principal | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a forwarded call that says whose it is."""
    return () if principal is None else ((CALLER, json.dumps(asdict(principal))),)


def heard(text: str) -> Principal:
    """What `told` wrote. Raises ValueError, KeyError or TypeError."""
    raw = json.loads(text)
    return Principal(raw["name"], Role(raw["role"]), tuple(raw["grants"]), raw["tenant"])


class CallContext(Protocol):
    """The part of a gRPC context that services use."""

    def time_remaining(self) -> float | None: ...


def principal_of(context: CallContext) -> Principal:
    """The caller, as authentication found it; without authentication ANONYMOUS."""
    principal: Principal = getattr(context, "principal", ANONYMOUS)
    return principal

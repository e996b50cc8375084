"""The caller of a request: who it is, what it may do, and the trace that the request belongs to."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from control_plane.types.access.api_key import Role

# W3C Trace Context: version, trace id, the caller's span, flags. Later versions may have more.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
TRACEPARENT = "traceparent"
# What gRPC's own retries say: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"
MAX_RETRIES, MAX_PEER_CHARS = 1000, 100


# Before the name in a certificate, of a caller that showed one.
CERTIFICATE = "certificate:"


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
    try:
        raw = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return Principal(raw["name"], Role(raw["role"]), tuple(raw["grants"]), raw["tenant"])


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, and the span in it that calls; ids as on the wire, in hex."""

    trace_id: str
    flags: str
    span_id: str

    @property
    def is_recorded(self) -> bool:
        return bool(int(self.flags, 16) & 1)

    @property
    def text(self) -> str:
        """The `traceparent` of what the span calls."""
        return self.header(self.span_id)

    def header(self, span_id: str) -> str:
        """The `traceparent` of a span of ours in it; span_id: 16 hexadecimal digits."""
        return f"00-{self.trace_id}-{span_id}-{self.flags}"


class CallContext(Protocol):
    """The part of a gRPC context that services use."""

    def time_remaining(self) -> float | None: ...
    def invocation_metadata(self) -> Any: ...


def principal_of(context: CallContext) -> Principal:
    """The caller, as authentication found it; without authentication ANONYMOUS."""
    principal: Principal = getattr(context, "principal", ANONYMOUS)
    return principal


def trace_of_header(text: str) -> Trace | None:
    """The trace that a `traceparent` names; None: it is not valid, and has to be ignored."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if (
        version == "ff"
        or not int(trace_id, 16)
        or not int(span_id, 16)
        or (version == "00" and more)
    ):
        return None
    # Of the flags of later versions only those are known that the first version has.
    return Trace(trace_id, f"{int(flags, 16) & 3:02x}", span_id)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: who calls, by which `door`, from which address, in which trace,
    and how often the caller had sent it before. `span_id`: that of the request itself, if its door
    has told the caller one.
    """

    principal: Principal
    door: str = "grpc"
    peer: str = ""
    trace: Trace | None = None
    retry: int = 0
    span_id: str = ""


def origin_of(context: CallContext) -> Origin:
    """Where a call comes from."""
    trace, retry = None, 0
    metadata: Iterable[tuple[str, Any]] = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == TRACEPARENT:
            trace = trace_of_header(value) if isinstance(value, str) else None
        elif key == PREVIOUS_ATTEMPTS and str(value).isdecimal():
            retry = min(int(value), MAX_RETRIES)
    peer = getattr(context, "peer", None)
    return Origin(
        principal_of(context),
        getattr(context, "door", "grpc"),
        address_of(peer()) if peer is not None else "",
        trace,
        retry,
        getattr(context, "span_id", ""),
    )


def address_of(peer: str) -> str:
    """The address in what gRPC says of a peer, such as ipv4:10.0.0.7:51312, without the port."""
    kind, is_there, rest = peer.partition(":")
    if not is_there or kind not in ("ipv4", "ipv6"):
        return peer[:MAX_PEER_CHARS]
    return rest.rpartition(":")[0][:MAX_PEER_CHARS]

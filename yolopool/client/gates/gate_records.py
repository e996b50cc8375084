"""Gates of models, and how versions did at them, as callers see them."""

from dataclasses import dataclass

from yolopool.v1 import rules_pb2

_STATES = {
    rules_pb2.GATE_STATE_UNSPECIFIED: "",
    rules_pb2.GATE_STATE_PENDING: "PENDING",
    rules_pb2.GATE_STATE_PASSED: "PASSED",
    rules_pb2.GATE_STATE_FAILED: "FAILED",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new version must reach before it takes over. `data`: SHA-256 of the zip of labelled
    images; the others are least mean average precisions, 0..1.
    """

    data: str
    min_map50_95: float
    min_map50: float
    since_unix_s: float


@dataclass(frozen=True, slots=True)
class Validation:
    """How a version did on the images of a gate. `objects` are labelled on `images`. `reason` and
    `message`: why it can't be evaluated on them; empty: it was.
    """

    data: str
    unix_s: float
    images: int
    objects: int
    map50: float
    map50_95: float
    reason: str
    message: str


def gate_of(gate: rules_pb2.Gate) -> Gate:
    return Gate(gate.data, gate.min_map50_95, gate.min_map50, gate.since_unix_s)


def validation_of(found: rules_pb2.Validation) -> Validation:
    return Validation(
        found.data,
        found.unix_s,
        found.images,
        found.objects,
        found.map50,
        found.map50_95,
        found.reason,
        found.message,
    )


def state_of(state: int) -> str:
    """Empty: there is no gate. A state of a newer release is told as its number."""
    return _STATES.get(state, str(state))  # type: ignore[call-overload, no-any-return] # an enum

"""Rules of models and validations: proto to types and back, with the checks of their messages."""

import math

from control_plane.types.policy import Gate, GateState, ModelRule, Validation
from yolopool.errors import InvalidOption
from yolopool.v1 import rules_pb2

MAX_PATTERN_CHARS, MAX_KEPT = 130, 1000
MAX_STORE_BYTES = 10**15

_STATES = {
    GateState.NONE: rules_pb2.GATE_STATE_UNSPECIFIED,
    GateState.PENDING: rules_pb2.GATE_STATE_PENDING,
    GateState.PASSED: rules_pb2.GATE_STATE_PASSED,
    GateState.FAILED: rules_pb2.GATE_STATE_FAILED,
}


def gate_in(gate: rules_pb2.Gate) -> Gate:
    """Without the digest checked. Raises InvalidOption."""
    least = (gate.min_map50_95, gate.min_map50)
    if not all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in least) or not any(least):
        raise InvalidOption("give min_map50_95 or min_map50, above 0 and at most 1")
    return Gate(gate.data, gate.min_map50_95, gate.min_map50)


def gate_out(gate: Gate) -> rules_pb2.Gate:
    return rules_pb2.Gate(
        data=gate.data,
        min_map50_95=gate.min_map50_95,
        min_map50=gate.min_map50,
        since_unix_s=gate.since_unix_s,
    )


def validation_out(found: Validation) -> rules_pb2.Validation:
    return rules_pb2.Validation(
        data=found.data,
        unix_s=found.unix_s,
        images=found.images,
        objects=found.objects,
        map50=found.map50,
        map50_95=found.map50_95,
        reason=found.reason,
        message=found.message,
    )


def gate_state_out(gate: Gate | None, found: Validation | None) -> rules_pb2.GateState.ValueType:
    return _STATES[gate.state(found) if gate is not None else GateState.NONE]


def rule_out(rule: ModelRule, used_bytes: int = 0) -> rules_pb2.ModelRule:
    return rules_pb2.ModelRule(
        pattern=rule.pattern,
        gate=gate_out(rule.gate) if rule.gate is not None else None,
        keep_versions=rule.keep_versions,
        store_bytes=rule.store_bytes,
        used_bytes=used_bytes,
    )


def check_store_rule(request: rules_pb2.SetStoreRuleRequest) -> str:
    """The pattern. Raises InvalidOption."""
    pattern = request.pattern
    if not pattern or len(pattern) > MAX_PATTERN_CHARS or not pattern.isprintable():
        raise InvalidOption(
            f"pattern: give at most {MAX_PATTERN_CHARS} characters, such as team-a/* or a name"
        )
    if not (request.HasField("keep_versions") or request.HasField("store_bytes")):
        raise InvalidOption("give keep_versions or store_bytes")
    if request.keep_versions > MAX_KEPT:
        raise InvalidOption(f"keep_versions is {request.keep_versions}: give at most {MAX_KEPT}")
    if request.store_bytes > MAX_STORE_BYTES:
        raise InvalidOption(f"store_bytes is {request.store_bytes}: give at most {MAX_STORE_BYTES}")
    return pattern

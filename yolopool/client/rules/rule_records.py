"""What is set for models by their names, as callers see it."""

from collections.abc import Iterable
from dataclasses import dataclass

from yolopool.client.gates.gate_records import Gate, gate_of
from yolopool.v1 import rules_pb2


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What is set for the models whose names match `pattern`. 0: all versions are kept, no limit.
    `used_bytes`: what their files take now.
    """

    pattern: str
    gate: Gate | None
    keep_versions: int
    store_bytes: int
    used_bytes: int


def rule_of(rule: rules_pb2.ModelRule) -> ModelRule:
    gate = gate_of(rule.gate) if rule.HasField("gate") else None
    return ModelRule(rule.pattern, gate, rule.keep_versions, rule.store_bytes, rule.used_bytes)


def rules_of(rules: Iterable[rules_pb2.ModelRule]) -> tuple[ModelRule, ...]:
    return tuple(rule_of(rule) for rule in rules)

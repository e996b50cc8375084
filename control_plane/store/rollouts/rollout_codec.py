"""Records of rollouts from what JSON has of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from control_plane.types.rollout.progress import Rollout, RolloutPlan
from yolopool.evaluation.agreement.disagreement import Tolerance

Record = TypeVar("Record")


def rollout_of(raw: Mapping[str, Any]) -> Rollout:
    plan = raw["plan"]
    parts = {"steps": tuple(plan["steps"]), "tolerance": made(Tolerance, plan["tolerance"])}
    texts = {name: tuple(raw.get(name, ())) for name in ("reasons", "findings")}
    return made(Rollout, {**raw, **texts, "plan": made(RolloutPlan, {**plan, **parts})})


def made(cls: type[Record], raw: Mapping[str, Any]) -> Record:
    """A record of the fields that are known here: a newer release may have more."""
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type] # dataclasses all
    return cls(**{name: value for name, value in raw.items() if name in known})

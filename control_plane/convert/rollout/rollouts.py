"""Rollouts: proto to types and back, with the checks of their messages."""

from collections.abc import Sequence
from dataclasses import fields

from control_plane.types.rollout.alias import WHOLE, Alias, AliasKey
from control_plane.types.rollout.progress import DEFAULT_STEPS, Outcome, Rollout, RolloutPlan
from yolopool.errors import InvalidOption
from yolopool.evaluation.agreement.disagreement import Tolerance
from yolopool.evaluation.agreement.evidence import SIZES, Evidence
from yolopool.evaluation.agreement.matching import class_name
from yolopool.evaluation.agreement.verdicts import Verdict
from yolopool.v1 import rollouts_pb2

DEFAULT_SHADOW = 50
MAX_STEPS, MAX_SAMPLES, MAX_STEP_S = 20, 1_000_000, 7 * 86_400.0


def plan_in(message: rollouts_pb2.RolloutPlan) -> RolloutPlan:
    """Raises InvalidOption."""
    usual = RolloutPlan()
    if len(message.steps) > MAX_STEPS:
        raise InvalidOption(f"a rollout has at most {MAX_STEPS} steps, not {len(message.steps)}")
    if message.min_samples > MAX_SAMPLES:
        raise InvalidOption(f"min_samples is {message.min_samples}: give at most {MAX_SAMPLES}")
    min_s = message.min_s if message.HasField("min_s") else usual.min_s
    # Written so that NaN is rejected too.
    if not 0.0 <= min_s <= MAX_STEP_S:
        raise InvalidOption(f"min_s is {min_s:g}: give 0 to {MAX_STEP_S:g}")
    plan = RolloutPlan(
        tuple(message.steps) or DEFAULT_STEPS,
        message.min_samples or usual.min_samples,
        min_s,
        message.false_alarms or usual.false_alarms,
        message.missed or usual.missed,
        tolerance_in(message.tolerance),
        message.keep_images,
    )
    fault = plan.fault()
    if fault:
        raise InvalidOption(fault)
    return plan


def shadow_in(message: rollouts_pb2.RolloutPlan) -> int:
    """The share of requests that are run on both versions. Raises InvalidOption."""
    if message.shadow > WHOLE:
        raise InvalidOption(f"shadow is {message.shadow}: of {WHOLE} requests, give 1 to {WHOLE}")
    return message.shadow or DEFAULT_SHADOW


def tolerance_in(message: rollouts_pb2.RolloutTolerance) -> Tolerance:
    given = {
        one.name: getattr(message, one.name)
        for one in fields(Tolerance)
        if message.HasField(one.name)  # type: ignore[arg-type] # the fields of the message
    }
    return Tolerance(**given)


def rollout_out(key: AliasKey, rollout: Rollout, share: int) -> rollouts_pb2.Rollout:
    """`share`: of requests that are run on both versions."""
    plan = rollout.plan
    tolerance = rollouts_pb2.RolloutTolerance(
        **{one.name: getattr(plan.tolerance, one.name) for one in fields(Tolerance)}
    )
    return rollouts_pb2.Rollout(
        id=rollout.id,
        alias=str(key),
        stable=rollout.stable,
        candidate=rollout.candidate,
        plan=rollouts_pb2.RolloutPlan(
            steps=plan.steps,
            shadow=share,
            min_samples=plan.min_samples,
            min_s=plan.min_s,
            false_alarms=plan.false_alarms,
            missed=plan.missed,
            tolerance=tolerance,
            keep_images=plan.keep_images,
        ),
        step=rollout.step,
        since_unix_s=rollout.since_unix_s,
        step_since_unix_s=rollout.step_since_unix_s,
        by=rollout.by,
        why=rollout.why,
        outcome=_outcome_out(rollout.outcome),
        settled=rollout.settled,
        ended_unix_s=rollout.ended_unix_s,
        reasons=rollout.reasons,
        findings=rollout.findings,
        running=rollout.running,
    )


def share_of(alias: Alias) -> int:
    return alias.shadow.share if alias.shadow is not None else 0


def _outcome_out(outcome: str) -> rollouts_pb2.RolloutOutcome.ValueType:
    if outcome not in Outcome.__members__:
        return rollouts_pb2.ROLLOUT_OUTCOME_UNSPECIFIED
    return rollouts_pb2.RolloutOutcome.Value(f"ROLLOUT_OUTCOME_{outcome}")


def measure_out(verdict: Verdict) -> rollouts_pb2.RolloutMeasure:
    return rollouts_pb2.RolloutMeasure(
        name=verdict.measure,
        finding=rollouts_pb2.RolloutFinding.Value(f"ROLLOUT_FINDING_{verdict.finding}"),
        samples=verdict.samples,
        value=verdict.value,
        allowed=verdict.allowed,
    )


def sizes_out(evidence: Evidence) -> list[rollouts_pb2.RolloutCount]:
    stable, matched, candidate = evidence.objects.astype(int).tolist()
    rows = zip(SIZES, stable, candidate, matched, strict=True)
    return [
        rollouts_pb2.RolloutCount(name=name, stable=ours, candidate=theirs, matched=both)
        for name, ours, theirs, both in rows
    ]


def classes_out(evidence: Evidence, names: Sequence[str]) -> list[rollouts_pb2.RolloutCount]:
    """`names`: by class id."""
    rows = sorted(evidence.classes.items())
    return [
        rollouts_pb2.RolloutCount(
            name=class_name(cls, names),
            stable=int(counts[0]),
            candidate=int(counts[1]),
        )
        for cls, counts in rows
    ]

"""Rollouts: their records for callers, and the calls about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.client.detections import Detections, from_response
from yolopool.v1 import rollouts_pb2


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout. `alias`: model:name; `stable` and `candidate`: versions of the model. `steps`:
    the candidate's shares of the requests in per mille, `step` which of them it is at.
    `shadow`: of a thousand requests how many are run on both. `outcome`: empty while it runs,
    then DONE, ROLLED_BACK or ABORTED for `reasons`; `settled`: the alias means what the outcome
    says. `findings`: of the last step that ended. `tolerance`: by name, as `start_rollout`
    takes it.
    """

    id: str
    alias: str
    stable: int
    candidate: int
    steps: tuple[int, ...]
    step: int
    shadow: int
    since_unix_s: float
    step_since_unix_s: float
    by: str
    why: str
    outcome: str
    settled: bool
    reasons: tuple[str, ...]
    findings: tuple[str, ...]
    min_samples: int
    min_s: float
    false_alarms: float
    tolerance: Mapping[str, float]

    @property
    def model(self) -> str:
        return self.alias.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: `finding` is WITHIN its tolerance, BEYOND it, or OPEN (more samples are needed).
    `value` and `allowed` are for people.
    """

    name: str
    finding: str
    samples: int
    value: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Objects of one size or class: of the stable version, of the candidate; `matched`: found by
    both, only by size.
    """

    name: str
    stable: int
    candidate: int
    matched: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of two versions: of `requests`, and of `images` that both answered."""

    measures: tuple[Measure, ...] = ()
    requests: int = 0
    images: int = 0
    sizes: tuple[Counted, ...] = ()
    classes: tuple[Counted, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """A rollout with what is known at its present step. `waits_for`: what the step still needs.
    `dropped`: samples that this control plane did not run, since something was busy.
    """

    rollout: Rollout
    compared: Comparison = field(default_factory=Comparison)
    waits_for: tuple[str, ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Disagreement:
    """An image, encoded as it was sent, and what both versions found."""

    encoded: bytes
    stable: Detections
    candidate: Detections


def start_rollout(
    alias: str,
    candidate: int,
    *,
    steps: Sequence[int] = (),
    shadow: int = 0,
    min_samples: int = 0,
    min_s: float | None = None,
    false_alarms: float = 0.0,
    tolerance: Mapping[str, float] | None = None,
    keep_images: bool = False,
    why: str = "",
) -> Call[Rollout]:
    """Takes an alias, model:name, to another version in steps that evidence decides; a candidate
    that is not good is rolled back by itself.

    `steps`: its shares of the requests in per mille, such as (10, 100, 500, 1000); 0: it only runs
    beside. `shadow`: of a thousand requests how many are run on both versions. `tolerance`: by name
    as in rollouts.proto, such as {"unmatched": 0.1}. What is left out, or 0, has its default.
    """
    request = rollouts_pb2.StartRolloutRequest(
        alias=alias,
        candidate=candidate,
        plan=rollouts_pb2.RolloutPlan(
            steps=steps,
            shadow=shadow,
            min_samples=min_samples,
            min_s=min_s,
            false_alarms=false_alarms,
            tolerance=rollouts_pb2.RolloutTolerance(**(tolerance or {})),
            keep_images=keep_images,
        ),
        why=why,
    )
    return Call("rollouts", "StartRollout", request, CHANGE_TIMEOUT_S, _of)


def rollout(alias: str) -> Call[RolloutReport]:
    """The present rollout of an alias, or its last one."""
    request = rollouts_pb2.GetRolloutRequest(alias=alias)
    return Call("rollouts", "GetRollout", request, READ_TIMEOUT_S, _report)


def rollouts(prefix: str = "") -> Call[tuple[Rollout, ...]]:
    """The present or last rollout of each alias of models whose name begins so."""
    request = rollouts_pb2.ListRolloutsRequest(name_prefix=prefix)
    return Call(
        "rollouts",
        "ListRollouts",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(map(_rollout, reply.rollouts)),
    )


def abort_rollout(alias: str, *, why: str = "") -> Call[Rollout]:
    """Ends a rollout: the alias means again what it meant before."""
    request = rollouts_pb2.AbortRolloutRequest(alias=alias, why=why)
    return Call("rollouts", "AbortRollout", request, CHANGE_TIMEOUT_S, _of)


def disagreements(alias: str) -> Call[tuple[Disagreement, ...]]:
    """The callers' images on which both versions disagree most, as far as the control plane kept
    them, the largest disagreement first.
    """
    request = rollouts_pb2.GetDisagreementsRequest(alias=alias)
    return Call(
        "rollouts",
        "GetDisagreements",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(map(_disagreement, reply.disagreements)),
    )


def _of(reply: Any) -> Rollout:
    return _rollout(reply.rollout)


def _rollout(message: rollouts_pb2.Rollout) -> Rollout:
    plan = message.plan
    return Rollout(
        message.id,
        message.alias,
        message.stable,
        message.candidate,
        tuple(plan.steps),
        message.step,
        plan.shadow,
        message.since_unix_s,
        message.step_since_unix_s,
        message.by,
        message.why,
        "" if message.running else _outcome(message.outcome),
        message.settled,
        tuple(message.reasons),
        tuple(message.findings),
        plan.min_samples,
        plan.min_s,
        plan.false_alarms,
        {field.name: value for field, value in plan.tolerance.ListFields()},
    )


def _outcome(number: int) -> str:
    known = number in rollouts_pb2.RolloutOutcome.values() and number != 0
    if not known:
        return "UNKNOWN"
    name = rollouts_pb2.RolloutOutcome.Name(number)  # type: ignore[arg-type] # checked above
    return name.removeprefix("ROLLOUT_OUTCOME_")


def _report(reply: rollouts_pb2.GetRolloutResponse) -> RolloutReport:
    measures = tuple(
        Measure(one.name, _finding(one.finding), one.samples, one.value, one.allowed)
        for one in reply.measures
    )
    return RolloutReport(
        _rollout(reply.rollout),
        Comparison(
            measures,
            reply.requests,
            reply.images,
            tuple(map(_counted, reply.sizes)),
            tuple(map(_counted, reply.classes)),
        ),
        tuple(reply.waits_for),
        reply.dropped,
    )


def _finding(number: int) -> str:
    if number not in rollouts_pb2.RolloutFinding.values():
        return "UNKNOWN"
    name = rollouts_pb2.RolloutFinding.Name(number)  # type: ignore[arg-type] # checked above
    return name.removeprefix("ROLLOUT_FINDING_")


def _counted(message: rollouts_pb2.RolloutCount) -> Counted:
    return Counted(message.name, message.stable, message.candidate, message.matched)


def _disagreement(message: rollouts_pb2.Disagreement) -> Disagreement:
    sides = (from_response(one, message.encoded) for one in (message.stable, message.candidate))
    return Disagreement(message.encoded, *sides)

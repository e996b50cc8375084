"""The record of a rollout: what its alias should mean, and plans that make no sense."""

from dataclasses import replace

import pytest

from control_plane.types.rollout.progress import Outcome, Rollout, RolloutPlan
from control_plane.types.rollout.target import Target
from yolopool.evaluation.agreement.disagreement import Tolerance

ONE = Rollout("r", 3, 4, RolloutPlan(steps=(0, 100, 1000)), "ann", "", 10.0, 10.0)


def test_what_the_alias_should_mean_at_each_step() -> None:
    assert ONE.targets == (Target(3, 1000),)
    assert replace(ONE, step=1).targets == (Target(3, 900), Target(4, 100))
    assert replace(ONE, step=2).targets == (Target(4, 1000),)


@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.ABORTED])
def test_the_stable_version_again_unless_it_went_well(outcome: Outcome) -> None:
    ended = replace(ONE, step=1).ended(outcome, ("why",), 20.0)
    assert ended.targets == (Target(3, 1000),)
    assert not ended.running
    assert replace(ONE, step=2).ended(Outcome.DONE, (), 20.0).targets == (Target(4, 1000),)


def test_an_outcome_of_a_newer_release_goes_back() -> None:
    assert replace(ONE, step=2, outcome="PAUSED_FOR_REVIEW").targets == (Target(3, 1000),)


def test_the_false_alarms_are_divided_among_the_steps() -> None:
    plan = RolloutPlan(steps=(0, 10, 100, 1000), false_alarms=0.02)
    assert plan.false_alarms_of_step * len(plan.steps) == pytest.approx(0.02)


@pytest.mark.parametrize(
    "plan",
    [
        RolloutPlan(steps=()),
        RolloutPlan(steps=(100, 10)),
        RolloutPlan(steps=(10, 10)),
        RolloutPlan(steps=(10, 1001)),
        RolloutPlan(min_samples=0),
        RolloutPlan(min_s=-1.0),
        RolloutPlan(false_alarms=0.5),
        RolloutPlan(missed=0.0),
        RolloutPlan(false_alarms=float("nan")),
        RolloutPlan(tolerance=Tolerance(lost=1.0)),
    ],
)
def test_plans_that_make_no_sense(plan: RolloutPlan) -> None:
    assert plan.fault()


def test_the_usual_plan_makes_sense() -> None:
    assert not RolloutPlan().fault()

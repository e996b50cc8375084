"""What becomes of a rollout: a step on, back, or what it still waits for."""

from dataclasses import replace

import numpy as np

from control_plane.rollout.judge import step
from control_plane.types.rollout.progress import Outcome, Rollout, RolloutPlan
from yolopool.evaluation.agreement.disagreement import disagreement
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.matching import Found

PLAN = RolloutPlan(steps=(100, 1000), min_samples=200, min_s=60.0)
ONE = Rollout("r", 3, 4, PLAN, "ann", "", 1000.0, 1000.0)
LATER = 1000.0 + PLAN.min_s


def evidence(samples: int, shift: float = 0.0) -> Evidence:
    found, rng = Evidence(PLAN.tolerance), np.random.default_rng(1)
    for _ in range(samples):
        low = rng.uniform(0, 300, (3, 2))
        boxes = np.concatenate((low, low + 50.0), axis=1)
        one = Found(boxes, np.array([0, 1, 1]), rng.uniform(0.3, 1.0, 3))
        other = Found(boxes + np.array([shift, 0, shift, 0]), one.classes, one.scores)
        found.note_outcome(stable_failed=False, candidate_failed=False)
        found.note_times(10.0, 10.0)
        found.note_images(one, other, disagreement(one, other, PLAN.tolerance))
    return found


def test_a_good_step_leads_to_the_next_and_the_last_to_the_end() -> None:
    good = evidence(600)
    second = step(ONE, good, LATER).rollout
    assert (second.step, second.step_since_unix_s) == (1, LATER)
    assert second.running
    assert len(second.findings) == 10
    done = step(second, good, LATER + PLAN.min_s).rollout
    assert done.outcome == Outcome.DONE
    assert done.ended_unix_s == LATER + PLAN.min_s


def test_it_waits_for_its_time_samples_and_certainty() -> None:
    early = step(ONE, evidence(600), 1010.0)
    assert early.rollout is ONE
    assert early.waits_for == ("50 s of 60 s",)
    few = step(ONE, evidence(20), LATER)
    assert few.rollout is ONE
    assert "20 of 200 requests compared" in few.waits_for
    assert "20 of 200 images compared" in few.waits_for
    assert few.waits_for[-1].startswith("more samples until it is certain about errors, ")


def test_what_is_beyond_its_tolerance_goes_back_at_once() -> None:
    found = step(ONE, evidence(60, shift=5.0), 1001.0)  # few samples, and no time has passed
    assert found.rollout.outcome == Outcome.ROLLED_BACK
    assert found.rollout.ended_unix_s == 1001.0
    assert found.rollout.reasons[0].startswith("shift: ")


def test_a_rollout_that_ended_stays_as_it_is() -> None:
    ended = replace(ONE, outcome=Outcome.ABORTED)
    assert step(ended, evidence(60, shift=5.0), LATER).rollout is ended


def test_the_same_evidence_gives_the_same_decision() -> None:
    known = evidence(100)
    first, again = step(ONE, known, LATER), step(ONE, known, LATER)
    assert first == again

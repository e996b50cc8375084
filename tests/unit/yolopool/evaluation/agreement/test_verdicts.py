"""What evidence says: what is broken is named, and what is good is shown to be."""

from collections.abc import Callable

import numpy as np

from yolopool.evaluation.agreement.disagreement import Tolerance, disagreement
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.matching import Found
from yolopool.evaluation.agreement.verdicts import ALL, Finding, Judgement, judge

ALLOWED = Tolerance()
NAMES = ("car", "bus", "van")
Change = Callable[[Found], Found]


def pair(seed: int, change: Change) -> tuple[Found, Found]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 500, (4, 2))
    boxes = np.concatenate((low, low + rng.uniform(20, 80, (4, 2))), axis=1)
    one = Found(boxes, rng.integers(0, 3, 4), rng.uniform(0.3, 1.0, 4))
    noisy = boxes + rng.normal(0, 1.0, boxes.shape)
    return one, change(Found(noisy, one.classes, one.scores))


def judged(
    change: Change, images: int = 120, *, failing: float = 0.0, slower: float = 1.0
) -> Judgement:
    evidence, rng = Evidence(ALLOWED), np.random.default_rng(5)
    for seed in range(images):
        failed = bool(rng.random() < failing)
        evidence.note_outcome(stable_failed=False, candidate_failed=failed)
        if failed:
            continue
        evidence.note_times(10.0, 10.0 * slower * float(rng.lognormal(0.0, 0.1)))
        one, other = pair(seed, change)
        evidence.note_images(one, other, disagreement(one, other, ALLOWED))
    return judge(evidence, NAMES, 0.01, 0.05)


def reasons(found: Judgement) -> list[str]:
    assert found.convicted
    return [one.measure for one in found.reasons]


def as_it_is(one: Found) -> Found:
    return one


def test_a_good_candidate_is_shown_to_be_within_everything() -> None:
    found = judged(as_it_is, 600)
    assert not found.convicted
    assert not found.reasons
    assert not found.open
    assert [one.measure for one in found.verdicts] == list(ALL)
    assert all(one.samples for one in found.verdicts)


def test_few_samples_decide_nothing() -> None:
    found = judged(as_it_is, 3)
    assert not found.convicted
    # Of single classes nothing has to be shown.
    assert {one.measure for one in found.open} == set(ALL) - {"lost"}


def test_nothing_compared_is_no_verdict() -> None:
    found = judge(Evidence(ALLOWED), NAMES, 0.01, 0.05)
    assert not found.convicted
    assert all(
        one.value == "nothing compared yet" for one in found.verdicts if one.measure != "lost"
    )


def test_boxes_that_are_shifted() -> None:
    found = judged(lambda one: Found(one.boxes + np.array([3, 0, 3, 0]), one.classes, one.scores))
    assert reasons(found) == ["shift"]
    (shift,) = found.reasons
    assert "too far right" in shift.value
    assert "+3.0" in shift.value


def test_two_classes_that_are_swapped() -> None:
    names = np.array([1, 0, 2])
    found = judged(lambda one: Found(one.boxes, names[one.classes], one.scores))
    assert reasons(found)[0] in ("class", "matched")
    assert {"class", "matched", "lost"} <= set(reasons(found))


def test_a_class_that_is_lost_is_named() -> None:
    def without(one: Found) -> Found:
        keep = one.classes != 2
        return Found(one.boxes[keep], one.classes[keep], one.scores[keep])

    found = judged(without)
    lost = next(one for one in found.reasons if one.measure == "lost")
    assert lost.value.startswith("van: 100% not found")


def test_confidence_that_is_halved() -> None:
    found = judged(lambda one: Found(one.boxes, one.classes, one.scores / 2))
    assert {"confidence", "scores"} <= set(reasons(found))


def test_slower_and_failing() -> None:
    assert reasons(judged(as_it_is, slower=2.0)) == ["time"]
    failing = judged(as_it_is, 600, failing=0.1)
    assert reasons(failing) == ["errors"]
    assert "of 600 failed, of the stable version 0" in failing.reasons[0].value


def test_what_is_allowed_convicts_nobody() -> None:
    # A little slower, a little shifted, a little less confident: each within its tolerance.
    found = judged(
        lambda one: Found(one.boxes + np.array([0.3, 0, 0.3, 0]), one.classes, one.scores - 0.03),
        400,
        slower=1.1,
    )
    assert not found.convicted


def test_several_measures_that_are_almost_beyond_convict_together() -> None:
    evidence = Evidence(ALLOWED)
    evidence.logs[:, 0] = np.log(600)  # below 1000 = 10 measures / 1 %, and above 1 / 1 %
    found = judge(evidence, NAMES, 0.01, 0.05)
    assert found.convicted
    assert found.reasons
    assert found.reasons[0].finding is Finding.BEYOND

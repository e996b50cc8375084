"""Sums of what was compared: they add up in any order, and survive being told."""

import json

import numpy as np
import pytest

from yolopool.evaluation.agreement.disagreement import Tolerance, disagreement
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.matching import Found

ALLOWED = Tolerance()


def noted(seeds: range) -> Evidence:
    evidence = Evidence(ALLOWED)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        failed = bool(rng.random() < 0.2)
        evidence.note_outcome(stable_failed=False, candidate_failed=failed)
        evidence.note_times(10.0, 10.0 * float(rng.uniform(0.8, 1.6)))
        count = int(rng.integers(0, 4))
        low = rng.uniform(0, 200, (count, 2))
        boxes = np.concatenate((low, low + rng.uniform(8, 150, (count, 2))), axis=1)
        one = Found(boxes, rng.integers(0, 3, count), rng.random(count))
        other = Found(boxes + rng.normal(0, 4, boxes.shape), one.classes, one.scores)
        evidence.note_images(one, other, disagreement(one, other, ALLOWED))
    return evidence


def same(one: Evidence, other: Evidence) -> bool:
    left, right = one.to_plain(), other.to_plain()
    assert left.keys() == right.keys()
    return (
        np.allclose(one.logs, other.logs)
        and np.allclose(one.sums, other.sums)
        and (one.requests, one.images) == (other.requests, other.images)
        and all(np.allclose(one.lost[cls], other.lost[cls]) for cls in one.lost)
        and all((one.classes[cls] == other.classes[cls]).all() for cls in one.classes)
        and (one.objects == other.objects).all()
        and (one.scores == other.scores).all()
    )


def test_two_control_planes_know_what_one_would() -> None:
    whole = noted(range(60))
    for cut in (1, 30, 59):
        first, second = noted(range(cut)), noted(range(cut, 60))
        second.add(first)
        assert same(second, whole)


def test_what_is_told_is_what_was_known() -> None:
    evidence = noted(range(40))
    text = json.dumps(evidence.to_plain())
    told = Evidence.from_plain(json.loads(text), ALLOWED)
    assert same(told, evidence)
    told.add(noted(range(40, 50)))  # it can be added to
    assert same(told, noted(range(50)))
    assert len(text) < 40_000


def test_sums_of_another_release_are_refused() -> None:
    plain = noted(range(3)).to_plain()
    with pytest.raises(ValueError, match="reshape"):
        Evidence.from_plain({**plain, "sums": plain["moved"]}, ALLOWED)
    del plain["logs"]
    with pytest.raises(KeyError):
        Evidence.from_plain(plain, ALLOWED)


def test_objects_are_counted_by_size_and_class() -> None:
    boxes = np.array([[0, 0, 31, 31], [0, 0, 95, 95], [0, 0, 96, 96]], np.float64)
    one = Found(boxes, np.array([0, 1, 1]), np.array([0.99, 1.0, 0.3]))
    less = Found(boxes[:2], one.classes[:2], one.scores[:2])
    evidence = Evidence(ALLOWED)
    evidence.note_images(one, less, disagreement(one, less, ALLOWED))
    assert evidence.objects.tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert {cls: counts.tolist() for cls, counts in evidence.classes.items()} == {
        0: [1.0, 1.0],
        1: [2.0, 1.0],
    }
    assert evidence.scores[0].sum() == 3
    assert evidence.scores[0][-1] == 2


def test_times_that_were_not_measured_say_nothing() -> None:
    evidence = Evidence(ALLOWED)
    evidence.note_times(0.0, 5.0)
    evidence.note_times(5.0, 0.0)
    assert not evidence.counts.any()

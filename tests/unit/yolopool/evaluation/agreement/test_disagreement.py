"""One image, two answers: what each measure says."""

import numpy as np
import pytest

from yolopool.evaluation.agreement.disagreement import (
    FIRST_OF_IMAGE,
    MEASURES,
    Disagreement,
    Tolerance,
    directions,
    disagreement,
)
from yolopool.evaluation.agreement.matching import Found

ALLOWED = Tolerance()
TWO = [(10.0, 10.0, 60.0, 50.0), (100.0, 100.0, 180.0, 220.0)]


def found(
    boxes: list[tuple[float, float, float, float]],
    classes: list[int] | None = None,
    scores: list[float] | None = None,
) -> Found:
    count = len(boxes)
    return Found(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(classes if classes is not None else [0] * count, np.int64),
        np.array(scores if scores is not None else [0.8] * count, np.float64),
    )


def said(apart: Disagreement) -> dict[str, float]:
    """The samples by the words of their directions."""
    words = [one.words for one in directions(ALLOWED)[FIRST_OF_IMAGE:]]
    assert len(words) == len(apart.samples)
    return dict(zip(words, apart.samples.tolist(), strict=True))


def test_every_direction_is_of_a_measure_and_its_bound_is_a_share() -> None:
    known = directions(ALLOWED)
    assert tuple(dict.fromkeys(one.measure for one in known)) == MEASURES
    assert all(0.0 < one.bound < 1.0 for one in known)


def test_equal_answers_agree_in_all() -> None:
    one = found(TWO, [0, 1], [0.9, 0.5])
    apart = disagreement(one, one, ALLOWED)
    values = said(apart)
    signed = {one.words for one in directions(ALLOWED) if one.signed}
    assert all(value == (0.5 if words in signed else 0.0) for words, value in values.items())
    assert apart.lost == {0: 0.0, 1: 0.0}
    assert apart.size == 0.0


def test_no_sample_leaves_the_unit_interval() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        sides = list[Found]()
        for _side in range(2):
            count = int(rng.integers(0, 6))
            low = rng.uniform(0, 200, (count, 2))
            boxes = np.concatenate((low, low + rng.uniform(1, 90, (count, 2))), axis=1)
            sides.append(Found(boxes, rng.integers(0, 3, count), rng.random(count)))
        samples = disagreement(sides[0], sides[1], ALLOWED).samples
        known = samples[~np.isnan(samples)]
        assert ((known >= 0.0) & (known <= 1.0)).all()


def test_an_image_on_which_neither_finds_anything_says_nothing() -> None:
    assert np.isnan(disagreement(found([]), found([]), ALLOWED).samples).all()


def test_an_object_that_is_missed() -> None:
    values = said(disagreement(found(TWO), found(TWO[:1]), ALLOWED))
    assert values["unmatched"] == pytest.approx(1 / 3)
    assert values["more objects"] == pytest.approx((1 - 0.5) / 2)
    assert values["fewer objects"] == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(
    ("by", "side"), [((2.0, 0.0), "right"), ((-2.0, 0.0), "left"), ((0.0, 2.0), "down")]
)
def test_a_shift_is_seen_on_its_side_alone(by: tuple[float, float], side: str) -> None:
    moved = [(x + by[0], y + by[1], r + by[0], b + by[1]) for x, y, r, b in TWO]
    apart = disagreement(found(TWO), found(moved), ALLOWED)
    values = said(apart)
    for other in ("left", "right", "up", "down"):
        assert values[f"shifted {other}"] == (1.0 if other == side else 0.0)
    assert apart.moved.tolist() == [list(by)] * 2


def test_a_shift_below_the_limit_of_a_large_box_is_allowed() -> None:
    large = [(0.0, 0.0, 300.0, 200.0)]
    moved = [(2.0, 0.0, 302.0, 200.0)]  # 2 px of 300: below 1 %
    assert said(disagreement(found(large), found(moved), ALLOWED))["shifted right"] == 0.0
    strict = Tolerance(shift_share=0.005)
    apart = disagreement(found(large), found(moved), strict)
    assert said(apart)["shifted right"] == 1.0


def test_boxes_of_another_class_are_relabelled_not_found_again() -> None:
    apart = disagreement(found(TWO, [0, 1]), found(TWO, [0, 2]), ALLOWED)
    values = said(apart)
    assert values["other class"] == 0.5
    assert values["unmatched"] == 0.5
    assert apart.lost == {0: 0.0, 1: 1.0}
    assert apart.relabelled.tolist() == [[1, 1]]


def test_confidence_and_its_distribution() -> None:
    values = said(
        disagreement(found(TWO, scores=[0.9, 0.7]), found(TWO, scores=[0.5, 0.3]), ALLOWED)
    )
    assert values["less confident"] == pytest.approx((1 + 0.4) / 2)
    assert values["more confident"] == pytest.approx((1 - 0.4) / 2)
    assert values["fewer above 0.6"] == 1.0
    assert values["more above 0.6"] == 0.0


def test_the_larger_disagreement_ranks_first() -> None:
    slight = disagreement(found(TWO), found([TWO[0], (104.0, 100.0, 184.0, 220.0)]), ALLOWED)
    much = disagreement(found(TWO), found(TWO[:1]), ALLOWED)
    assert 0.0 < slight.size < much.size


def test_a_tolerance_that_can_not_be_tested_is_a_fault() -> None:
    assert not ALLOWED.fault()
    assert "unmatched is 1" in Tolerance(unmatched=1.0).fault()
    assert "errors is 0" in Tolerance(errors=0.0).fault()
    assert "count is nan" in Tolerance(count=float("nan")).fault()
    assert "slower is -1" in Tolerance(slower=-1.0).fault()
    assert not Tolerance(slower=3.0, shift_px=12.0).fault()

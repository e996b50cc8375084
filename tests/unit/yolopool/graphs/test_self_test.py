"""The kept answer: the same passes, rounded or in another order of rows; others do not."""

import numpy as np
import pytest

from yolopool.graphs import answers, self_test
from yolopool.graphs.answers import Form, Rows
from yolopool.v1.types_pb2 import (
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_PLAIN,
    OUTPUT_LAYOUT_UNSPECIFIED,
    OutputLayout,
)

CLASSES, SIZE = 3, (64, 96)


def answer(layout: "OutputLayout.ValueType", seed: int) -> Rows:
    random = np.random.default_rng(seed)
    if layout == OUTPUT_LAYOUT_UNSPECIFIED:
        outputs = random.uniform(0, 1, (1, CLASSES))
    elif layout == OUTPUT_LAYOUT_PLAIN:
        boxes, scores = random.uniform(0, 64, (1, 4, 200)), random.uniform(0, 1, (1, CLASSES, 200))
        outputs = np.concatenate((boxes, scores), axis=1)
    else:
        low, score = random.uniform(0, 40, (1, 50, 2)), random.uniform(0.1, 1, (1, 50, 1))
        kind = random.integers(0, CLASSES, (1, 50, 1))
        outputs = np.concatenate((low, low + 20, score, kind), axis=2)
    return answers.read(Form(layout, CLASSES), [outputs], 1, SIZE)[0]


@pytest.mark.parametrize(
    "layout", [OUTPUT_LAYOUT_UNSPECIFIED, OUTPUT_LAYOUT_PLAIN, OUTPUT_LAYOUT_END_TO_END]
)
def test_the_same_answer_passes_and_another_does_not(layout: "OutputLayout.ValueType") -> None:
    form, right, wrong = Form(layout, CLASSES), answer(layout, 1), answer(layout, 2)
    kept = self_test.kept(form, right)
    assert 0 < len(kept) <= self_test.ROWS * self_test.NUMBERS
    assert self_test.difference(form, kept, right, "fp32") == ""
    near = Rows(right.boxes + 1e-3, right.confidence - 1e-3, right.values, right.whole)
    assert self_test.difference(form, kept, near, "fp32") == ""
    assert "differ" in self_test.difference(form, kept, wrong, "fp32")


def test_rounding_of_reduced_precision_passes_there_alone() -> None:
    form, right = Form(OUTPUT_LAYOUT_PLAIN, CLASSES), answer(OUTPUT_LAYOUT_PLAIN, 1)
    kept = self_test.kept(form, right)
    moved = Rows(right.boxes + 0.08, right.confidence, right.values, right.whole)
    assert self_test.difference(form, kept, moved, "int8") == ""
    assert "allowed is 0.02" in self_test.difference(form, kept, moved, "fp32")


def test_answers_without_boxes_are_the_same() -> None:
    form, some = Form(OUTPUT_LAYOUT_END_TO_END, CLASSES), answer(OUTPUT_LAYOUT_END_TO_END, 1)
    nothing = Rows(some.boxes[:0], some.confidence[:0], some.values[:0], some.whole)
    assert self_test.kept(form, nothing) == []
    assert self_test.difference(form, [], nothing, "fp32") == ""
    assert "no boxes" in self_test.difference(form, [], some, "fp32")
    assert "no boxes" in self_test.difference(form, self_test.kept(form, some), nothing, "fp32")

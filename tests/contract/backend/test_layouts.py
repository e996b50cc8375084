"""Answers of ONNX graphs: read as their layout says, and never as another."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.arrays import F32
from worker.backends.onnx.layouts import Final, Scored, candidates, decode
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import InferenceFailed
from yolopool.v1.types_pb2 import (
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PAIR,
    OUTPUT_LAYOUT_PLAIN,
    OutputLayout,
)

SIZE = (320, 416)
LAYOUTS = [
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PLAIN,
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_PAIR,
]


class Boxes:
    """Some boxes on a batch: corners (b, n, 4), score (b, n), class (b, n)."""

    def __init__(self, seed: int, batch: int, rows: int, classes: int) -> None:
        random = np.random.default_rng(seed)
        low = random.uniform(10, 200, (batch, rows, 2))
        self.corners = np.concatenate((low, low + random.uniform(5, 100, (batch, rows, 2))), 2)
        score = np.sort(random.uniform(0.1, 1, (batch, rows)), axis=1)[:, ::-1]
        self.score: F32 = score.astype(np.float32)
        self.class_id = random.integers(0, classes, (batch, rows))
        self.classes = classes

    def answer(self, layout: "OutputLayout.ValueType", flat: bool = False) -> list[F32]:
        """As a graph of the layout gives them."""
        low, high = self.corners[..., :2], self.corners[..., 2:]
        centred = np.concatenate(((low + high) / 2, high - low), 2)
        one_hot = np.eye(self.classes)[self.class_id]
        scores = one_hot * self.score[..., None]
        objectness = np.sqrt(self.score)[..., None]
        named = np.concatenate((self.score[..., None], self.class_id[..., None]), 2)
        height, width = SIZE
        whole: list[npt.NDArray[np.float64]]
        if layout == OUTPUT_LAYOUT_OBJECTNESS:
            whole = [np.concatenate((centred, objectness, one_hot * objectness), 2)]
        elif layout == OUTPUT_LAYOUT_PLAIN:
            whole = [np.concatenate((centred, scores), 2).transpose(0, 2, 1)]
        elif layout == OUTPUT_LAYOUT_PAIR:
            whole = [(self.corners / [width, height, width, height])[:, :, None], scores]
        elif flat:
            image = np.broadcast_to(np.arange(len(low))[:, None, None], (*low.shape[:2], 1))
            whole = [np.concatenate((image, self.corners, named[..., ::-1]), 2).reshape(-1, 7)]
        else:
            whole = [np.concatenate((self.corners, named), 2)]
        return [one.astype(np.float32) for one in whole]


def seen(answer: Scored | Final, image: int) -> F32:
    """Rows of corners, score and class of one image."""
    if isinstance(answer, Final):
        return answer.rows[image]
    centred, score = answer.boxes[image].T, answer.confidence[image]
    half = centred[:, 2:] / 2
    classes = answer.classes(image, np.arange(len(score)))
    return np.column_stack((centred[:, :2] - half, centred[:, :2] + half, score, classes))


cases = st.tuples(
    st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 40), st.sampled_from([1, 2, 5, 80])
)


@given(cases, st.sampled_from(LAYOUTS), st.booleans())
def test_boxes_come_out_as_they_went_in(
    case: tuple[int, int, int, int], layout: "OutputLayout.ValueType", flat: bool
) -> None:
    boxes = Boxes(*case)
    batch = case[1]
    found = decode(layout, boxes.answer(layout, flat), boxes.classes, batch, SIZE)
    for image in range(batch):
        rows = seen(found, image)
        np.testing.assert_allclose(rows[:, :4], boxes.corners[image], atol=1e-3)
        np.testing.assert_allclose(rows[:, 4], boxes.score[image], atol=1e-6)
        np.testing.assert_array_equal(rows[:, 5], boxes.class_id[image])


@given(cases, st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))
def test_an_answer_is_never_read_as_another_layout(
    case: tuple[int, int, int, int],
    layout: "OutputLayout.ValueType",
    taken: "OutputLayout.ValueType",
) -> None:
    boxes = Boxes(*case)
    answer = boxes.answer(layout)
    if taken == layout or (boxes.classes, taken) == (1, OUTPUT_LAYOUT_OBJECTNESS):
        return  # one class: final boxes have the width of rows with objectness
    if (taken == OUTPUT_LAYOUT_PAIR) != (layout == OUTPUT_LAYOUT_PAIR):
        answer = answer * 2 if len(answer) == 1 else answer
    with pytest.raises(InferenceFailed, match="not of its layout"):
        decode(taken, answer, boxes.classes, case[1], SIZE)


def test_final_boxes_read_as_objectness_are_none() -> None:
    boxes = Boxes(1, 1, 20, 1)
    found = decode(OUTPUT_LAYOUT_OBJECTNESS, boxes.answer(OUTPUT_LAYOUT_END_TO_END), 1, 1, SIZE)
    assert isinstance(found, Scored)
    assert not found.confidence.any()


def times(*factors: float) -> Callable[[F32], F32]:
    return lambda one: one * np.array(factors, np.float32)


def plus(*terms: float) -> Callable[[F32], F32]:
    return lambda one: one + np.array(terms, np.float32)


def shrink(one: F32) -> F32:
    """Its boxes, as shares of the image."""
    return np.concatenate((one[:, :4] / 416, one[:, 4:]), axis=1)


END = OUTPUT_LAYOUT_END_TO_END
WRONG: dict[str, tuple["OutputLayout.ValueType", Callable[[F32], F32], str]] = {
    "logits": (OUTPUT_LAYOUT_PLAIN, times(20), "0..1"),
    "shares": (OUTPUT_LAYOUT_PLAIN, shrink, "shares"),
    "more classes": (END, plus(0, 0, 0, 0, 0, 3), "classes"),
    "half a class": (END, plus(0, 0, 0, 0, 0, 0.5), "classes"),
    "sizes": (END, plus(0, 0, -300, -300, 0, 0), "corners"),
    "final shares": (END, times(1 / 416, 1 / 416, 1 / 416, 1 / 416, 1, 1), "shares"),
    "final logits": (END, plus(0, 0, 0, 0, 7, 0), "0..1"),
    "pixels": (OUTPUT_LAYOUT_PAIR, lambda one: one * 320 if one.ndim == 4 else one, "pixels"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_no_such_answer_has_are_refused(kind: str) -> None:
    layout, change, words = WRONG[kind]
    answer = [change(one) for one in Boxes(3, 1, 20, 3).answer(layout)]
    with pytest.raises(InferenceFailed, match=words):
        decode(layout, answer, 3, 1, SIZE)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["score", "box"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_finite_fails_its_own_image_alone(
    layout: "OutputLayout.ValueType", what: str, number: float
) -> None:
    boxes = Boxes(3, 3, 20, 2)
    whole = boxes.answer(layout)
    options = [NmsOptions((0.25,) * 2, 0.7, 300, False)] * 3
    expected = candidates(decode(layout, whole, 2, 3, SIZE), options)
    last = whole[-1] if what == "score" else whole[0]
    if layout == OUTPUT_LAYOUT_PLAIN:
        last[1, 4 if what == "score" else 0] = number
    elif layout == OUTPUT_LAYOUT_PAIR and what == "box":
        last[1, 0, 0, 0] = number
    elif layout == OUTPUT_LAYOUT_PAIR:
        last[1, 0] = number
    else:
        last[1, 0, 4 if what == "score" else 0] = number
    first, second, third = candidates(decode(layout, whole, 2, 3, SIZE), options)
    assert second.failure is not None
    assert "not finite" in second.failure.message
    assert not len(second.xyxy)
    for found, known in ((first, expected[0]), (third, expected[2])):
        assert found.failure is None
        np.testing.assert_array_equal(found.xyxy, known.xyxy)
        np.testing.assert_array_equal(found.confidence, known.confidence)


def test_a_row_that_is_not_finite_and_does_not_count_changes_nothing() -> None:
    nan = float("nan")
    rows = [[20, 20, 80, 90, 0.5, 0], [200, 100, 280, 160, 0.9, 1], [nan, 0, 1, 1, 0.1, nan]]
    answer = np.array([rows], np.float32)
    options = [NmsOptions((0.25, 0.25), 0.7, 1, False)]
    (found,) = candidates(decode(OUTPUT_LAYOUT_END_TO_END, [answer], 2, 1, SIZE), options)
    assert found.failure is None
    np.testing.assert_allclose(found.confidence, [0.9])
    answer[0, 0, 5] = 7
    with pytest.raises(InferenceFailed, match="its classes"):
        decode(OUTPUT_LAYOUT_END_TO_END, [answer], 2, 1, SIZE)


def test_rows_that_fill_an_answer_up_are_left_out() -> None:
    boxes = Boxes(3, 1, 20, 3)
    (answer,) = boxes.answer(OUTPUT_LAYOUT_END_TO_END)
    empty = np.array([[[0, 0, 0, 0, 0, -1]] * 5], np.float32)
    found = decode(OUTPUT_LAYOUT_END_TO_END, [np.concatenate((empty, answer), 1)], 3, 1, SIZE)
    assert isinstance(found, Final)
    np.testing.assert_array_equal(found.rows[0], answer[0])


def test_images_beyond_the_batch_are_refused() -> None:
    answer = Boxes(3, 2, 20, 3).answer(OUTPUT_LAYOUT_END_TO_END, flat=True)
    with pytest.raises(InferenceFailed, match="batch"):
        decode(OUTPUT_LAYOUT_END_TO_END, answer, 3, 1, SIZE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_left_is_the_same_whatever_the_layout(
    layout: "OutputLayout.ValueType",
) -> None:
    """Two objects far apart, one of them found twice; final boxes come without the second."""
    boxes = Boxes(3, 2, 3, 2)
    boxes.corners[:] = [[20, 20, 80, 90], [200, 100, 280, 160], [21, 20, 80, 91]]
    boxes.score[:], boxes.class_id[:] = [0.9, 0.8, 0.7], [1, 0, 1]
    answer = boxes.answer(layout)
    if layout == OUTPUT_LAYOUT_END_TO_END:
        answer = [answer[0][:, :2]]
    options = [NmsOptions((0.25, 0.25), 0.7, 300, False), NmsOptions((0.85, 0.25), 0.7, 300, False)]
    first, second = candidates(decode(layout, answer, 2, 2, SIZE), options)
    np.testing.assert_allclose(first.xyxy, boxes.corners[0, :2], atol=1e-3)
    np.testing.assert_array_equal(first.class_id, [1, 0])
    np.testing.assert_array_equal(second.class_id, [1])

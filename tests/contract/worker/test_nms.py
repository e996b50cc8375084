"""NMS equals the model library's in boxes, order and limits, on thousands of random cases."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from ultralytics.utils import nms as library

from worker.postprocess import nms
from worker.postprocess.outputs import NmsOptions

# Else it gives up after some seconds, and what is compared depends on the machine.
non_max_suppression = partial(library.non_max_suppression, max_time_img=60.0)
OPTIONS = NmsOptions((0.25,) * 4, 0.7, 300, False)


@pytest.fixture(autouse=True)
def _numpy_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is what is compared here, wherever torchvision imports too."""
    monkeypatch.setattr(nms, "suppress", nms.suppress_in_numpy)


def boxes_of(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    centre, size = rng.uniform(0, spread, (count, 2)), rng.uniform(1, 120, (count, 2))
    return np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)


def predictions(rng: np.random.Generator, batch: int, classes: int, count: int) -> torch.Tensor:
    boxes = rng.uniform(8, 300, (batch, 4, count))
    scores = rng.uniform(0, 1, (batch, classes, count)) ** 3
    return torch.from_numpy(np.concatenate((boxes, scores), 1).astype(np.float32))


def one_to_many(
    prediction: torch.Tensor, options: Sequence[NmsOptions]
) -> tuple[nms.Suppressed, ...]:
    """Ours, of the library's own form: float (batch, 4 + nc, n)."""
    boxes, scores = prediction[:, :4].numpy(), prediction[:, 4:].numpy()
    return nms.one_to_many(
        boxes, scores.max(1), lambda image, rows: scores[image][:, rows].argmax(0), options
    )


def assert_equal(ours: nms.Suppressed, theirs: torch.Tensor) -> None:
    rows = theirs.numpy()
    np.testing.assert_array_equal(ours.boxes, rows[:, :4])
    np.testing.assert_array_equal(ours.confidence, rows[:, 4])
    np.testing.assert_array_equal(ours.class_id, rows[:, 5].astype(np.int64))


@pytest.mark.matrix(sample=4)
@pytest.mark.matrix(sample=4)
@pytest.mark.parametrize("seed", range(20))
def test_suppression_equals_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        count = int(rng.integers(0, 60))
        boxes = boxes_of(rng, count, float(rng.choice([40, 200, 5_000])))
        scores = rng.uniform(0, 1, count).astype(np.float32)
        if rng.random() < 0.5:
            scores = np.round(scores, 1)  # ties
        if rng.random() < 0.3:
            boxes = (
                np.round(boxes / 16) * 16
            )  # equal and touching boxes, exact thresholds, empty ones
        if rng.random() < 0.2 and count:
            boxes[rng.integers(0, count, count // 3), 2] -= 200  # turned inside out
        iou = float(rng.choice([0.0, 0.1, 0.45, 0.5, 0.7, 1.0]))
        theirs = library.TorchNMS.nms(
            torch.from_numpy(boxes), torch.from_numpy(scores), iou
        ).numpy()
        limit = int(rng.choice([1, 7, 300]))
        ours = nms.suppress_in_numpy(boxes, scores, iou, limit)
        np.testing.assert_array_equal(ours, theirs[:limit])


@pytest.mark.parametrize("count", [63, 64, 65, 129, 700, 1_500])
def test_blocks_join_without_a_seam(count: int) -> None:
    rng = np.random.default_rng(count)
    boxes = boxes_of(rng, count, 400)
    scores = np.round(rng.uniform(0, 1, count), 2).astype(np.float32)
    theirs = library.TorchNMS.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).numpy()
    np.testing.assert_array_equal(nms.suppress_in_numpy(boxes, scores, 0.5, count), theirs)


@pytest.mark.matrix(sample=8)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("confidence", "iou", "most"), [(0.25, 0.7, 300), (0.01, 0.45, 20)])
def test_a_batch_equals_the_library(
    seed: int, agnostic: bool, confidence: float, iou: float, most: int
) -> None:
    prediction = predictions(np.random.default_rng(seed), 3, 4, 400)
    options = NmsOptions((confidence,) * 4, iou, most, agnostic)
    ours = one_to_many(prediction.clone(), [options] * 3)
    theirs = non_max_suppression(prediction, confidence, iou, agnostic=agnostic, max_det=most)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one.boxes)
        assert_equal(one, other)


def test_every_image_has_its_own_options() -> None:
    prediction = predictions(np.random.default_rng(1), 2, 4, 300)
    strict = replace(OPTIONS, class_confidence=(0.9,) * 4, max_detections=5)
    ours = one_to_many(prediction.clone(), [OPTIONS, strict])
    assert_equal(ours[0], non_max_suppression(prediction[:1], 0.25, 0.7)[0])
    assert_equal(ours[1], non_max_suppression(prediction[1:], 0.9, 0.7, max_det=5)[0])


def test_classes_not_asked_for_are_filtered_as_the_library_does() -> None:
    prediction = predictions(np.random.default_rng(2), 1, 4, 300)
    options = replace(OPTIONS, class_confidence=(2.0, 0.25, 2.0, 0.25))
    theirs = non_max_suppression(prediction.clone(), 0.25, 0.7, classes=[1, 3])
    assert_equal(one_to_many(prediction, [options])[0], theirs[0])


def test_a_class_may_have_its_own_threshold() -> None:
    prediction = predictions(np.random.default_rng(3), 1, 4, 300)
    options = replace(OPTIONS, class_confidence=(0.25, 0.8, 0.25, 0.25), iou=1.0)
    ours = one_to_many(prediction.clone(), [options])[0]
    everything = one_to_many(prediction, [replace(OPTIONS, iou=1.0)])[0]
    wanted = (everything.class_id != 1) | (everything.confidence > np.float32(0.8))
    assert not wanted.all()
    np.testing.assert_array_equal(ours.boxes, everything.boxes[wanted])


def test_nothing_above_the_threshold_is_no_box() -> None:
    prediction = predictions(np.random.default_rng(4), 2, 4, 50)
    nothing = replace(OPTIONS, class_confidence=(2.0,) * 4)
    for answer in one_to_many(prediction, [nothing, nothing]):
        assert answer.boxes.shape == (0, 4)
        assert answer.confidence.shape == answer.class_id.shape == (0,)


def test_more_boxes_than_are_compared_are_cut_as_the_library_cuts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prediction = predictions(np.random.default_rng(5), 1, 4, 300)
    monkeypatch.setattr(nms, "MAX_COMPARED", 40)
    options = replace(OPTIONS, class_confidence=(0.01,) * 4)
    theirs = non_max_suppression(prediction.clone(), 0.01, 0.7, max_nms=40)
    assert_equal(one_to_many(prediction, [options])[0], theirs[0])


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 4])  # of a box, of a class
def test_an_image_that_is_not_finite_is_told_from_the_others(number: float, row: int) -> None:
    prediction = predictions(np.random.default_rng(7), 3, 4, 200)
    theirs = non_max_suppression(prediction.clone(), 0.25, 0.7)
    prediction[1, row, prediction[1, 4:].amax(0).argmax()] = number
    first, second, third = one_to_many(prediction, [OPTIONS] * 3)
    assert not second.finite
    assert not len(second.rows)
    assert_equal(first, theirs[0])
    assert_equal(third, theirs[2])


def test_a_box_below_the_threshold_may_be_anything() -> None:
    """The library's own answer is not touched by it either."""
    prediction = predictions(np.random.default_rng(7), 1, 4, 200)
    prediction[0, 4:, 5] = 0.1
    theirs = non_max_suppression(prediction.clone(), 0.25, 0.7)
    prediction[0, :4, 5] = np.nan
    (found,) = one_to_many(prediction, [OPTIONS])
    assert found.finite
    assert_equal(found, theirs[0])


@pytest.mark.parametrize("column", range(7))
def test_final_rows_that_are_not_finite_are_told(column: int) -> None:
    rows = np.array([[1, 2, 3, 4, 0.9, 1, 5], [1, 2, 3, 4, 0.1, 1, 5]], np.float32)
    assert nms.end_to_end(rows, OPTIONS).finite
    rows[0, column] = np.nan
    assert not nms.end_to_end(rows, OPTIONS).finite


@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_final_boxes_are_only_filtered(classes: list[int] | None) -> None:
    rng = np.random.default_rng(6)
    rows = np.concatenate(
        (
            boxes_of(rng, 300, 600),
            np.sort(rng.uniform(0, 1, (300, 1)))[::-1],
            rng.integers(0, 4, (300, 1)),
        ),
        1,
    ).astype(np.float32)
    thresholds = tuple(0.25 if classes is None or index in classes else 2.0 for index in range(4))
    options = NmsOptions(thresholds, 0.7, 50, False)
    theirs = non_max_suppression(
        torch.from_numpy(rows)[None], 0.25, classes=classes, max_det=50, end2end=True
    )
    assert_equal(nms.end_to_end(rows, options), theirs[0])

"""Rotated boxes equal the model library's: corners, ProbIoU, suppression."""

from functools import partial

import numpy as np
import pytest
import torch
from ultralytics.utils import nms as library
from ultralytics.utils import ops
from ultralytics.utils.metrics import batch_probiou

from worker.postprocess import nms, rotated_boxes
from worker.postprocess.outputs import NmsOptions

# Else it gives up after some seconds, and what is compared depends on the machine.
non_max_suppression = partial(library.non_max_suppression, max_time_img=60.0)


def boxes_of(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    return np.column_stack(
        (
            rng.uniform(0, spread, (count, 2)),
            rng.uniform(2, 120, (count, 2)),
            rng.uniform(-np.pi / 4, 3 * np.pi / 4, count),
        )
    ).astype(np.float32)


def test_corners_and_hulls() -> None:
    boxes = boxes_of(np.random.default_rng(0), 50, 600)
    theirs = ops.xywhr2xyxyxyxy(torch.from_numpy(boxes)).numpy()
    np.testing.assert_allclose(rotated_boxes.corners(boxes), theirs, rtol=0, atol=1e-4)
    hulls = rotated_boxes.hulls(boxes)
    np.testing.assert_allclose(hulls[:, :2], theirs.min(1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(hulls[:, 2:], theirs.max(1), rtol=0, atol=1e-4)
    assert rotated_boxes.corners(boxes[:0]).shape == (0, 4, 2)


def test_probiou() -> None:
    rng = np.random.default_rng(1)
    left, right = boxes_of(rng, 40, 200), boxes_of(rng, 60, 200)
    theirs = batch_probiou(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    ours = rotated_boxes.probiou(left, right)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("seed", range(10))
def test_suppression_equals_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, iou = int(rng.integers(1, 400)), float(rng.choice([0.1, 0.45, 0.7]))
    boxes = boxes_of(rng, count, float(rng.choice([60, 300, 2000])))
    scores = np.round(rng.uniform(0, 1, count), 2).astype(np.float32)
    theirs = library.TorchNMS.fast_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), iou, iou_func=batch_probiou
    ).numpy()
    order = nms.descending(scores)
    np.testing.assert_array_equal(rotated_boxes.suppress(boxes, order, iou, count), theirs)
    np.testing.assert_array_equal(rotated_boxes.suppress(boxes, order, iou, 3), theirs[:3])


def test_nothing_to_suppress() -> None:
    empty = np.zeros((0, 5), np.float32)
    assert len(rotated_boxes.suppress(empty, np.zeros(0, np.int64), 0.5, 10)) == 0


@pytest.mark.parametrize("agnostic", [False, True])
def test_a_batch_equals_the_library(agnostic: bool) -> None:
    rng = np.random.default_rng(3)
    boxes = rng.uniform(8, 300, (2, 4, 300))
    scores = rng.uniform(0, 1, (2, 3, 300)) ** 3
    angles = rng.uniform(-0.7, 2.3, (2, 1, 300))
    prediction = np.concatenate((boxes, scores, angles), 1).astype(np.float32)
    theirs = non_max_suppression(
        torch.from_numpy(prediction), 0.25, 0.4, agnostic=agnostic, nc=3, rotated=True, max_det=50
    )
    own = prediction[:, 4:7]
    ours = nms.one_to_many(
        prediction[:, :4],
        own.max(1),
        lambda image, rows: own[image][:, rows].argmax(0),
        [NmsOptions((0.25,) * 3, 0.4, 50, agnostic)] * 2,
        prediction[:, 7],
    )
    for one, other in zip(ours, theirs, strict=True):
        rows = other.numpy()
        np.testing.assert_array_equal(one.boxes, rows[:, :4])
        np.testing.assert_array_equal(one.confidence, rows[:, 4])
        np.testing.assert_array_equal(one.class_id, rows[:, 5])

"""A head's rows become the candidates of its task, from either kind of head."""

import numpy as np
import pytest

from worker.arrays import F32, I64
from worker.postprocess.heads import DETECT, OBB, POSE, SEGMENT, Head, classified
from worker.postprocess.outputs import (
    Candidates,
    Keypoints,
    MaskParts,
    NmsOptions,
    Probabilities,
    Rotations,
)

OPTIONS = NmsOptions((0.25, 0.25), 0.5, 10, False)
# Three boxes of centre, width and height: the second overlaps the first, the third is unsure.
BOXES = np.array([[50, 50, 20, 20], [51, 50, 20, 20], [200, 80, 40, 10]], np.float32)
CONFIDENCE = np.array([0.9, 0.8, 0.1], np.float32)
PROTOTYPES = np.arange(2 * 4 * 4, dtype=np.float32).reshape(1, 2, 4, 4)


def first_class(image: int, rows: I64) -> I64:
    return np.zeros(len(rows), np.int64)


def one_to_many(head: Head, extra: F32, options: NmsOptions = OPTIONS) -> Candidates:
    prototypes = PROTOTYPES if head.task == SEGMENT else None
    (candidates,) = head.one_to_many(
        BOXES.T[None], CONFIDENCE[None], first_class, extra.T[None], prototypes, [options]
    )
    return candidates


def extra_of(width: int) -> F32:
    return np.arange(3 * width, dtype=np.float32).reshape(3, width)


def test_detect_has_boxes_alone() -> None:
    candidates = one_to_many(Head(DETECT, 2), extra_of(0))
    np.testing.assert_array_equal(candidates.xyxy, [[40, 40, 60, 60]])
    assert candidates.confidence.tolist() == [np.float32(0.9)]
    assert candidates.class_id.dtype == np.int64
    assert candidates.task_output is None


def test_segment_has_coefficients_and_its_own_prototypes() -> None:
    candidates = one_to_many(Head(SEGMENT, 2, mask_coefficients=2), extra_of(2))
    parts = candidates.task_output
    assert isinstance(parts, MaskParts)
    np.testing.assert_array_equal(parts.coefficients, [[0, 1]])
    np.testing.assert_array_equal(parts.prototypes, PROTOTYPES[0])
    assert not np.shares_memory(parts.prototypes, PROTOTYPES)


def test_segment_without_masks_has_boxes_alone() -> None:
    options = NmsOptions((0.25, 0.25), 0.5, 10, False, masks=False)
    candidates = one_to_many(Head(SEGMENT, 2, mask_coefficients=2), extra_of(2), options)
    assert candidates.task_output is None
    assert len(candidates.xyxy) == 1


@pytest.mark.parametrize(
    ("head", "width"),
    [
        (Head(SEGMENT, 2, mask_coefficients=2), 2),
        (Head(POSE, 2, keypoints=2, keypoint_values=3), 6),
        (Head(OBB, 2, angles=1), 1),
    ],
)
def test_what_is_not_finite_is_no_answer(head: Head, width: int) -> None:
    extra = extra_of(width)
    extra[2] = np.nan  # of a row that is unsure
    assert one_to_many(head, extra).failure is None
    extra[0, width - 1] = np.inf
    found = one_to_many(head, extra)
    assert found.failure is not None
    assert found.failure.reason == "ANSWER_NOT_FINITE"
    assert not len(found.xyxy)


def test_probabilities_that_are_not_finite_fail_their_own_image() -> None:
    first, second = classified(np.array([[0.5, 0.5], [np.nan, 1]], np.float32))
    assert (first.failure, second.failure is None) == (None, False)


@pytest.mark.parametrize("confidence", [0.25, 1.0])
def test_pose_has_points_of_its_form_even_of_no_object(confidence: float) -> None:
    head = Head(POSE, 2, keypoints=2, keypoint_values=3)
    options = NmsOptions((confidence, confidence), 0.5, 10, False)
    points = one_to_many(head, extra_of(6), options).task_output
    assert isinstance(points, Keypoints)
    if confidence < 1:
        np.testing.assert_array_equal(points.points, [[[0, 1, 2], [3, 4, 5]]])
    else:
        assert points.points.shape == (0, 2, 3)


def test_rotated_boxes_have_upright_boxes_round_them() -> None:
    angles = np.array([[np.pi / 2], [np.pi / 2], [0]], np.float32)
    candidates = one_to_many(Head(OBB, 2, angles=1), angles)
    rotations = candidates.task_output
    assert isinstance(rotations, Rotations)
    np.testing.assert_allclose(rotations.boxes, [[50, 50, 20, 20, np.pi / 2]])
    np.testing.assert_allclose(candidates.xyxy, [[40, 40, 60, 60]], atol=1e-4)


def test_final_rows_are_filtered_and_not_suppressed() -> None:
    rows = np.array(
        [
            [40, 40, 60, 60, 0.9, 1, 7, 8],
            [41, 40, 61, 60, 0.8, 1, 9, 10],
            [0, 0, 9, 9, 0.1, 0, 0, 0],
        ],
        np.float32,
    )
    head = Head(POSE, 2, keypoints=1, keypoint_values=2)
    (candidates,) = head.end_to_end([rows], None, [OPTIONS])
    np.testing.assert_array_equal(candidates.xyxy, rows[:2, :4])
    assert candidates.class_id.tolist() == [1, 1]
    points = candidates.task_output
    assert isinstance(points, Keypoints)
    np.testing.assert_array_equal(points.points, [[[7, 8]], [[9, 10]]])


def test_classified_images_have_probabilities_and_no_boxes() -> None:
    values = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    answers = classified(values)
    assert len(answers) == len(values)
    for answer, row in zip(answers, values, strict=True):
        assert isinstance(answer.task_output, Probabilities)
        np.testing.assert_array_equal(answer.task_output.values, row)
        assert not np.shares_memory(answer.task_output.values, values)
        assert answer.xyxy.shape == (0, 4)

"""From candidates to the message and back to a caller's arrays, task by task."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from worker.postprocess import results
from worker.postprocess.outputs import (
    Candidates,
    Keypoints,
    MaskParts,
    Probabilities,
    Rotations,
    TaskOutput,
)
from worker.postprocess.results import MaskFormat, Results
from worker.preprocess.letterbox import Letterboxed, Origin
from worker.service import response
from yolopool.cli import result_tables
from yolopool.client import detections
from yolopool.client.detections import Detections
from yolopool.errors import DeadlineExceeded, InvalidOption
from yolopool.v1 import detection_pb2

NAMES = ("cat", "dog", "cow")
# 100 x 60 pixels at (10, 20) of 160 x 120, doubled and padded to 200 x 128.
PLACE = Origin(Letterboxed(np.zeros((128, 200, 3), np.uint8), (60, 100)), (10, 20), (120, 160))
BOXES = np.array([[0, 4, 100, 64], [120, 24, 160, 44]], np.float32)


def candidates(task_output: TaskOutput | None) -> Candidates:
    return Candidates(BOXES, np.array([0.9, 0.5], np.float32), np.array([1, 0]), task_output)


def sent(found: Results, task: str, with_masks: bool = True, **more: Any) -> Detections:
    """As a client reads it, after the wire."""
    message = detection_pb2.DetectResponse(
        detections=response.detections_to(found, NAMES),
        image_width=160,
        image_height=120,
        task=task,
        **more,
    )
    read = detection_pb2.DetectResponse.FromString(message.SerializeToString())
    return detections.from_response(read, Image.new("RGB", (160, 120), (20, 20, 20)), with_masks)


def drawn(answer: Detections) -> int:
    """How many pixels a plot changes; its table is made too."""
    result_tables.results(answer, "picture")
    return int((np.asarray(answer.plot()) != 20).any(2).sum())


def test_boxes_come_back() -> None:
    found = results.results_of(candidates(None), PLACE, MaskFormat.POLYGON)
    np.testing.assert_allclose(found.xyxy, [[10, 20, 60, 50], [70, 30, 90, 40]])
    answer = sent(found, "detect")
    np.testing.assert_array_equal(answer.xyxy, found.xyxy)
    assert answer.class_name == ("dog", "cat")
    assert (answer.masks, answer.keypoints, answer.xywhr) == (None, None, None)
    assert answer.classification is None
    assert drawn(answer)


@pytest.mark.parametrize("with_visibility", [True, False])
def test_keypoints_come_back_and_stay_on_the_image(with_visibility: bool) -> None:
    points = np.array([[[0, 4, 0.9], [500, 64, 0.1]], [[120, 24, 1], [0, 0, 0]]], np.float32)
    points = points if with_visibility else points[..., :2]
    found = results.results_of(candidates(Keypoints(points)), PLACE, MaskFormat.POLYGON)
    answer = sent(found, "pose")
    assert answer.keypoints is not None
    assert answer.keypoints.shape == points.shape
    expected = [[[10, 20], [110, 50]], [[70, 30], [10, 20]]]
    np.testing.assert_allclose(answer.keypoints[..., :2], expected)
    if with_visibility:
        np.testing.assert_allclose(answer.keypoints[..., 2], points[..., 2])
    assert answer[1:].keypoints is not None
    assert answer[0].to_dict()["keypoints"][0][:2] == [10, 20]
    assert drawn(answer)


def test_rotated_boxes_come_back_with_corners_and_hulls() -> None:
    boxes = np.array([[100, 64, 40, 20, 0], [100, 64, 400, 20, np.pi / 2]], np.float32)
    found = results.results_of(candidates(Rotations(boxes)), PLACE, MaskFormat.POLYGON)
    answer = sent(found, "obb")
    assert answer.xywhr is not None
    assert answer.corners is not None
    np.testing.assert_allclose(answer.xywhr[0], [60, 50, 20, 10, 0], atol=1e-4)
    np.testing.assert_allclose(answer.corners[0], [[70, 55], [70, 45], [50, 45], [50, 55]])
    np.testing.assert_allclose(answer.xyxy[0], [50, 45, 70, 55])
    # The second is longer than the image is high.
    np.testing.assert_allclose(answer.xyxy[1], [55, 0, 65, 120], atol=1e-3)
    assert answer.corners[1].min() < 0
    assert drawn(answer)


def mask_parts() -> MaskParts:
    """A prototype that is 1 in the left quarter; of the second box nothing is positive."""
    prototypes = np.full((1, 32, 50), -1, np.float32)
    prototypes[0, :, :12] = 1
    return MaskParts(np.ones((2, 1), np.float32), prototypes)


def test_outlines_come_back_and_empty_masks_go() -> None:
    found = results.results_of(candidates(mask_parts()), PLACE, MaskFormat.POLYGON)
    assert found.xyxy.tolist() == [[10, 20, 60, 50]]
    answer = sent(found, "segment")
    assert answer.masks is not None
    (mask,) = answer.masks
    (outline,) = mask.polygons
    assert outline.min(0).tolist() == [10, 20]
    assert outline.max(0)[0] == pytest.approx(34, abs=1)
    pixels = mask.to_array()
    assert pixels.shape == (120, 160)
    assert pixels[30, 12]
    assert not pixels[30, 50]
    coco = mask.to_coco()
    assert isinstance(coco, list)
    assert len(coco[0]) == 2 * len(outline)
    assert drawn(answer) > drawn(replace(answer, masks=None))


def test_run_lengths_are_of_the_whole_image() -> None:
    found = results.results_of(candidates(mask_parts()), PLACE, MaskFormat.RLE)
    answer = sent(found, "segment")
    assert answer.masks is not None
    (mask,) = answer.masks
    pixels = mask.to_array()
    rows, columns = np.nonzero(pixels)
    assert pixels.shape == (120, 160)
    assert (rows.min(), rows.max(), columns.min()) == (20, 49, 10)
    assert columns.max() == pytest.approx(33, abs=1)
    coco = mask.to_coco()
    assert isinstance(coco, dict)
    assert coco["size"] == [120, 160]
    assert drawn(answer)


def test_without_masks_every_box_stays() -> None:
    found = results.results_of(candidates(mask_parts()), PLACE, MaskFormat.NONE)
    answer = sent(found, "segment")
    assert len(answer) == 2
    assert answer.masks is None


def test_nothing_found_is_told_from_no_masks_wanted() -> None:
    nothing = Candidates(BOXES[:0], np.zeros(0, np.float32), np.zeros(0, np.int64), None)
    found = results.results_of(nothing, PLACE, MaskFormat.POLYGON)
    assert sent(found, "segment").masks == ()
    assert sent(found, "segment", with_masks=False).masks is None


def test_masks_of_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_MASK_BYTES", 8)
    with pytest.raises(InvalidOption, match="fewer detections"):
        results.results_of(candidates(mask_parts()), PLACE, MaskFormat.POLYGON)


def test_mask_bytes_of_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (MaskFormat.POLYGON, MaskFormat.RLE):
        tile = results.results_of(candidates(mask_parts()), PLACE, kind)
        with monkeypatch.context() as patch:
            patch.setattr(results, "MAX_MASK_BYTES", tile.mask_bytes)
            results.check_mask_bytes(tile.mask_bytes)
            with pytest.raises(InvalidOption, match="fewer detections"):
                results.check_mask_bytes(2 * tile.mask_bytes)


def test_masks_end_when_nobody_waits_for_them() -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 1

    with pytest.raises(DeadlineExceeded, match="1 of 2 masks"):
        results.results_of(candidates(mask_parts()), PLACE, MaskFormat.POLYGON, stop)


def test_names_are_no_markup() -> None:
    found = replace(
        sent(results.results_of(candidates(None), PLACE, MaskFormat.NONE), "detect"),
        class_name=("[/]", "[red]cat"),
    )
    console = Console(width=200, file=io.StringIO())
    console.print(
        result_tables.results(found, "[/x].jpg"), result_tables.timing([("[/x].jpg", found)])
    )
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    assert text.count("[/x].jpg") == 2
    assert "[red]cat" in text


def test_a_classification_comes_back() -> None:
    values = np.array([0.2, 0.7, 0.1], np.float32)
    empty = Candidates(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int64),
        Probabilities(values),
    )
    found = results.results_of(empty, PLACE, MaskFormat.POLYGON)
    assert found.probabilities is not None
    for everything in (False, True):
        message = response.classification_to(found.probabilities, NAMES, 2, everything)
        answer = sent(found, "classify", classification=message)
        top = answer.classification
        assert top is not None
        assert top.class_name == ("dog", "cat")
        np.testing.assert_allclose(top.probability, [0.7, 0.2])
        assert top.probabilities.tolist() == (values.tolist() if everything else [])
        assert len(answer) == 0
        assert "dog 0.70, cat 0.20" in repr(answer)
        assert answer.to_dict()["classification"]["top"][0]["class_name"] == "dog"
        assert drawn(answer)


def test_a_saved_picture_is_a_picture() -> None:
    buffer = io.BytesIO()
    found = results.results_of(candidates(None), PLACE, MaskFormat.POLYGON)
    sent(found, "detect").plot().save(buffer, "PNG")
    assert Image.open(buffer).size == (160, 120)

"""Detections as the library supervision has them, which reads and checks what it is given."""

from dataclasses import replace

import numpy as np

from yolopool.client.detections import Detections, Timing
from yolopool.client.masks import Mask

FOUND = Detections(
    xyxy=np.array([[10, 40, 60, 90], [70, 2, 150, 100]], dtype=np.float32),
    confidence=np.array([0.9, 0.5], dtype=np.float32),
    class_id=np.array([1, 0]),
    class_name=("square", "circle"),
    model="shapes@1",
    image_size=(160, 120),
    timing=Timing(total_ms=12.0),
    source=None,
)


def test_boxes_and_classes() -> None:
    theirs = FOUND.to_supervision()
    assert theirs.xyxy.tolist() == FOUND.xyxy.tolist()
    assert theirs.class_id.tolist() == [1, 0]
    assert theirs.data["class_name"].tolist() == ["square", "circle"]


def test_masks_are_of_the_whole_image() -> None:
    corners = np.array([[10, 20], [30, 20], [30, 50], [10, 50]], np.float32)
    masks = (Mask((160, 120), (corners,)), Mask((160, 120), (corners + 40,)))
    theirs = replace(FOUND, masks=masks).to_supervision()
    assert theirs.mask.shape == (2, 120, 160)
    for mask, drawn in zip(masks, theirs.mask, strict=True):
        np.testing.assert_array_equal(drawn, mask.to_array())

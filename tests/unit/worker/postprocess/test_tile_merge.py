"""What overlapping tiles find becomes one answer without doubles."""

import numpy as np
import pytest

from worker.postprocess.results import Results
from worker.postprocess.tile_merge import merge_tiles
from worker.preprocess.letterbox import Region

WHOLE = Region(0, 0, 200, 100)
LEFT, RIGHT = Region(0, 0, 120, 100), Region(80, 0, 200, 100)


def found(*rows: tuple[float, float, float, float, float, int]) -> Results:
    """Rows of corners, confidence, class."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Results(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))


def merged(
    left: Results, right: Results, agnostic: bool = False, most: int = 300
) -> list[list[float]]:
    answer = merge_tiles([(LEFT, left), (RIGHT, right)], WHOLE, 0.5, agnostic, most)
    boxes: list[list[float]] = answer.xyxy.tolist()
    return boxes


def test_a_small_whole_box_in_a_large_cut_one_is_another_object() -> None:
    large, small = (10, 10, 120, 90, 0.95, 0), (90, 40, 100, 50, 0.3, 0)
    assert merged(found(large), found(small)) == [[10, 10, 120, 90], [90, 40, 100, 50]]


def test_what_two_tiles_see_is_one() -> None:
    boxes = merged(found((85, 10, 105, 30, 0.8, 0)), found((86, 10, 106, 30, 0.9, 0)))
    assert boxes == [[86, 10, 106, 30]]


def test_a_piece_goes_before_a_whole_even_if_it_is_surer() -> None:
    piece, whole = (100, 10, 120, 30, 0.9, 0), (100, 10, 160, 30, 0.5, 0)
    assert merged(found(piece), found(whole)) == [[100, 10, 160, 30]]


def test_pieces_that_hardly_overlap_stay() -> None:
    left, right = (60, 10, 120, 30, 0.9, 0), (80, 10, 200, 30, 0.8, 0)
    boxes = merged(found((20, 10, 120, 30, 0.9, 0)), found((110, 10, 190, 30, 0.8, 0)))
    assert len(boxes) == 2
    assert len(merged(found(left), found(right))) == 1


def test_whole_boxes_within_each_other_stay() -> None:
    small, large = (90, 40, 100, 50, 0.9, 0), (85, 20, 118, 80, 0.8, 0)
    assert len(merged(found(small), found(large))) == 2


def test_classes_are_apart_unless_they_are_not_to_be() -> None:
    left, right = found((85, 10, 105, 30, 0.8, 0)), found((85, 10, 105, 30, 0.9, 1))
    assert len(merged(left, right)) == 2
    assert len(merged(left, right, agnostic=True)) == 1


def test_boxes_of_one_tile_are_left_alone() -> None:
    left = found((10, 10, 50, 50, 0.9, 0), (12, 10, 50, 50, 0.8, 0))
    assert len(merged(left, found())) == 2


def test_the_surest_are_kept_and_come_first() -> None:
    left = found((10, 10, 20, 20, 0.3, 0), (30, 10, 40, 20, 0.2, 0))
    right = found((150, 10, 160, 20, 0.9, 0), (170, 10, 180, 20, 0.25, 0))
    answer = merge_tiles([(LEFT, left), (RIGHT, right)], WHOLE, 0.5, False, 3)
    assert answer.confidence.tolist() == pytest.approx([0.9, 0.3, 0.25])


def test_nothing_is_nothing() -> None:
    answer = merge_tiles([(LEFT, found()), (RIGHT, found())], WHOLE, 0.5, False, 300)
    assert len(answer.confidence) == 0


def test_rotated_boxes_are_compared_as_such() -> None:
    """Two that cross lie in one hull, and are two."""

    def rotated(angle: float, confidence: float) -> Results:
        box = np.array([[100, 50, 30, 4, angle]], np.float32)
        one = found((88, 38, 112, 62, confidence, 0))
        return Results(one.xyxy, one.confidence, one.class_id, rotated=box)

    parts = [(LEFT, rotated(0.78, 0.9)), (RIGHT, rotated(-0.78, 0.8))]
    assert len(merge_tiles(parts, WHOLE, 0.5, False, 300).confidence) == 2
    parts = [(LEFT, rotated(0.78, 0.9)), (RIGHT, rotated(0.78, 0.8))]
    answer = merge_tiles(parts, WHOLE, 0.5, False, 300)
    assert answer.rotated is not None
    assert answer.rotated.shape == (1, 5)


def test_masks_follow_their_boxes() -> None:
    def with_mask(one: Results, x: float) -> Results:
        outline = (np.full((3, 2), x, np.float32),)
        return Results(
            one.xyxy, one.confidence, one.class_id, masks=(outline,) * len(one.confidence)
        )

    left = with_mask(found((85, 10, 105, 30, 0.8, 0)), 1)
    right = with_mask(found((86, 10, 106, 30, 0.9, 0), (150, 10, 160, 20, 0.5, 0)), 2)
    answer = merge_tiles([(LEFT, left), (RIGHT, right)], WHOLE, 0.5, False, 300)
    assert answer.masks is not None
    assert [float(mask[0][0, 0]) for mask in answer.masks if isinstance(mask, tuple)] == [2, 2]

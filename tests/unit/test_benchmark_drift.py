"""Drift between two models, by hand-made boxes."""

from benchmarks.harness import drift
from benchmarks.harness.drift import Drift
from benchmarks.harness.matching import Detected

CAR = Detected("car", (10, 10, 50, 50), 0.9)


def test_equal_boxes_do_not_drift() -> None:
    assert drift.between([CAR], [CAR]) == Drift(1, 1, 0, 0.0, 0.0)
    assert drift.total([]) == Drift()


def test_the_largest_distance_counts() -> None:
    moved = Detected("car", (10, 12, 50, 47), 0.85)
    found = drift.between([CAR], [moved])
    assert (found.matched, found.pixels, round(found.score, 3)) == (1, 3, 0.05)
    both = drift.total([found, Drift(2, 1, 1, 1.0, 0.2)])
    assert both == Drift(3, 2, 1, 3, 0.2)


def test_another_class_or_place_is_no_match() -> None:
    bus, far = Detected("bus", CAR.box, 0.9), Detected("car", (60, 60, 90, 90), 0.9)
    assert drift.between([CAR], [bus, far]) == Drift(1, 0, 2, 0.0, 0.0)


def test_a_box_is_found_again_once() -> None:
    near = Detected("car", (11, 10, 50, 50), 0.8)
    assert drift.between([CAR, near], [CAR]) == Drift(2, 1, 0, 0.0, 0.0)

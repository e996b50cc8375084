"""How many images a pass may have: what is promised, and what was seen to fit."""

import sys

from worker.engine.batch_limits import BatchLimits

SQUARE, WIDE = (640, 640), (320, 640)


def test_the_smaller_of_two_limits_holds() -> None:
    limits = BatchLimits()
    assert limits.max_images("a@1", SQUARE) == sys.maxsize
    limits.promise("a@1", 8)
    limits.too_large("a@1", SQUARE, 6)
    assert (limits.max_images("a@1", SQUARE), limits.max_images("a@1", WIDE)) == (3, 8)
    limits.promise("a@1", 2)
    assert limits.max_images("a@1", SQUARE) == 2
    limits.promise("a@1", 8)
    limits.reset_fit("a@1")
    assert limits.max_images("a@1", SQUARE) == 8
    limits.too_large("a@1", SQUARE, 4)
    limits.forget("a@1")
    assert limits.max_images("a@1", SQUARE) == sys.maxsize


def test_images_that_fail_together_and_not_alone_run_alone() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    assert limits.failed_together("a@1", [1, 2, 3, 4])
    assert not limits.failed_together("a@1", [5, 6]), "the second pass that was in flight"
    assert [limits.max_images("a@1", shape) for shape in (SQUARE, WIDE)] == [1, 1]
    assert limits.max_images("b@1", SQUARE) == sys.maxsize
    assert not limits.failed_alone("a@1", [9]), "it was in no pass that failed"
    assert limits.max_images("a@1", SQUARE) == 1
    limits.reset_fit("a@1")  # it is loaded again
    assert limits.max_images("a@1", SQUARE) == 8


def test_an_image_that_fails_alone_too_was_at_fault_and_not_its_company() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    limits.failed_together("a@1", [1, 2])
    limits.failed_together("a@1", [3, 4])
    assert limits.failed_alone("a@1", [3])
    assert limits.max_images("a@1", SQUARE) == 8
    assert not limits.failed_alone("a@1", [4]), "it is lifted already"

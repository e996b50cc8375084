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

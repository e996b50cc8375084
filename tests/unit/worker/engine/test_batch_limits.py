"""How many images a pass may have: what is promised, and what was seen to fit."""

import sys

from worker.engine.batch_limits import ALONE_S, MAX_ALONE_S, BatchLimits

SQUARE, WIDE = (640, 640), (320, 640)


def test_the_smaller_of_two_limits_holds() -> None:
    limits = BatchLimits()
    assert limits.max_images("a@1", SQUARE, 0.0) == sys.maxsize
    limits.promise("a@1", 8)
    limits.too_large("a@1", SQUARE, 6)
    assert (limits.max_images("a@1", SQUARE, 0.0), limits.max_images("a@1", WIDE, 0.0)) == (3, 8)
    limits.promise("a@1", 2)
    assert limits.max_images("a@1", SQUARE, 0.0) == 2
    limits.promise("a@1", 8)
    limits.reset_fit("a@1")
    assert limits.max_images("a@1", SQUARE, 0.0) == 8
    limits.too_large("a@1", SQUARE, 4)
    limits.forget("a@1")
    assert limits.max_images("a@1", SQUARE, 0.0) == sys.maxsize


def test_images_that_fail_together_and_not_alone_run_alone() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    assert limits.failed_together("a@1", 0.0, [1, 2, 3, 4])
    assert not limits.failed_together("a@1", 0.0, [5, 6]), "the second pass that was in flight"
    assert [limits.max_images("a@1", shape, 0.0) for shape in (SQUARE, WIDE)] == [1, 1]
    assert limits.max_images("b@1", SQUARE, 0.0) == sys.maxsize
    assert not limits.failed_alone("a@1", [9]), "it was in no pass that failed"
    assert limits.max_images("a@1", SQUARE, 0.0) == 1
    limits.reset_fit("a@1")  # it is loaded again
    assert limits.max_images("a@1", SQUARE, 0.0) == 8


def test_an_image_that_left_untried_may_have_been_at_fault() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    limits.failed_together("a@1", 0.0, [1, 2, 3])
    limits.ran_alone("a@1", 1)
    limits.left(1)
    limits.left(9)
    assert limits.max_images("a@1", SQUARE, 0.0) == 1
    limits.left(2)
    assert limits.max_images("a@1", SQUARE, 0.0) == 8
    limits.failed_together("a@1", 0.0, [4, 5])
    for ticket in (4, 5):
        limits.ran_alone("a@1", ticket)
        limits.left(ticket)
    assert limits.max_images("a@1", SQUARE, 0.0) == 1, "all of them run alone, and none in company"


def test_an_image_that_fails_alone_too_was_at_fault_and_not_its_company() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    limits.failed_together("a@1", 0.0, [1, 2])
    limits.failed_together("a@1", 0.0, [3, 4])
    assert limits.failed_alone("a@1", [3])
    assert limits.max_images("a@1", SQUARE, 0.0) == 8
    assert not limits.failed_alone("a@1", [4]), "it is lifted already"


def test_images_may_come_together_again_after_a_while_which_doubles() -> None:
    limits, now, waits = BatchLimits(), 100.0, list[float]()
    limits.promise("a@1", 8)
    for _ in range(9):
        assert limits.failed_together("a@1", now, [1, 2])
        wait_s = ALONE_S
        while limits.max_images("a@1", SQUARE, now + wait_s) == 1:
            assert limits.max_images("a@1", SQUARE, now + wait_s - 0.001) == 1
            wait_s *= 2
            wait_s = min(wait_s, MAX_ALONE_S)
        waits.append(wait_s)
        now += wait_s
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_pass_of_several_that_is_well_ends_it() -> None:
    limits = BatchLimits()
    limits.promise("a@1", 8)
    limits.failed_together("a@1", 0.0)
    limits.ran_together("a@1", 1.0)
    assert limits.max_images("a@1", SQUARE, 2.0) == 1, "it was in flight when the other failed"
    limits.ran_together("a@1", ALONE_S)
    assert limits.failed_together("a@1", ALONE_S + 5)
    assert limits.max_images("a@1", SQUARE, 2 * ALONE_S + 4) == 1
    assert limits.max_images("a@1", SQUARE, 2 * ALONE_S + 5) == 8, "the first wait, not the double"

"""Whether an answer was of a version that was live is judged right."""

import pytest

from benchmarks.harness.switches import Answer, Move, latest_s, lives, out_of_time, windows

# Version 1 until 10.0, 2 until 20.0, 1 again. Orders return half a second after the move.
MOVES = [
    Move("promote", 2, 9.0, 10.5, 10.0),
    Move("rollback", 1, 19.9, 20.5, 20.0),
]
TIMELINE = lives(1, MOVES)


@pytest.mark.parametrize(
    ("sent_s", "answered_s", "version", "is_right"),
    [
        (1.0, 2.0, 1, True),
        (1.0, 2.0, 2, False),  # not yet
        (9.5, 11.0, 1, True),  # it found what it found
        (9.5, 11.0, 2, True),
        (10.3, 11.0, 1, True),  # the order had not returned
        (10.6, 11.0, 1, False),
        (12.0, 13.0, 2, True),
        (20.6, 21.0, 2, False),
        (30.0, 31.0, 1, True),
        (12.0, 13.0, 3, False),  # never live
        (9.0, 9.9, 2, False),  # answered before it was
    ],
)
def test_an_answer_is_of_a_live_version(
    sent_s: float, answered_s: float, version: int, is_right: bool
) -> None:
    answer = Answer(sent_s, answered_s, version)
    assert out_of_time([answer], TIMELINE) == ([] if is_right else [answer])


def test_how_late_the_version_before_answers_is_told() -> None:
    answers = [Answer(9.5, 11.0, 1), Answer(10.3, 11.0, 1), Answer(12.0, 13.0, 2)]
    assert latest_s(answers, TIMELINE) == pytest.approx(0.3)
    assert latest_s(answers[:1], TIMELINE) == 0.0


def test_windows_count_what_was_answered_in_them() -> None:
    answers = [Answer(0.0, t / 10, 1) for t in range(300)]
    answers += [Answer(0.0, 5.0, 0, "QUEUE_FULL")] * 50
    assert windows(answers, 0.0, 12.0) == pytest.approx([10.0, 10.0, 10.0])
    assert windows(answers, 25.0, 35.0) == pytest.approx([5.0])
    assert windows(answers, 0.0, 9.0) == []

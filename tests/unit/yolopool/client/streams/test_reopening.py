"""How long a lost stream is opened again."""

from yolopool.client.streams.reopening import FIRST_S, LIVED_S, MAX_PAUSE_S, Reopening


def opened(patience_s: float = 30.0) -> Reopening:
    one = Reopening(patience_s)
    one.opened(0.0)
    return one


def test_a_pool_that_never_answered_is_soon_given_up() -> None:
    one, now = opened(), 0.0
    while (pause_s := one.pause_s(now)) is not None:
        now += pause_s
        one.opened(now)
    assert FIRST_S <= now < FIRST_S + MAX_PAUSE_S


def test_one_that_worked_is_given_the_time_of_a_frame() -> None:
    one, now = opened(), 100.0
    one.answered()
    one.opened(now)
    pauses = []
    while (pause_s := one.pause_s(now)) is not None:
        pauses.append(pause_s)
        now += pause_s
        one.opened(now)
    assert 130.0 <= now < 130.0 + MAX_PAUSE_S
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, MAX_PAUSE_S)


def test_an_answer_begins_the_time_anew() -> None:
    one = opened(10.0)
    one.answered()
    assert one.pause_s(1.0) == 0.1
    one.opened(1.1)
    one.answered()
    assert one.pause_s(12.0) == 0.1


def test_so_does_a_connection_that_lived_though_no_frame_came() -> None:
    one = opened(10.0)
    assert one.pause_s(LIVED_S) == 0.1
    one.opened(LIVED_S + 0.1)
    assert one.pause_s(3600.0) == 0.1

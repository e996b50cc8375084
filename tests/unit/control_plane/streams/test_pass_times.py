"""How many frames to have in flight, from what answers say of passes."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from control_plane.streams.pass_times import DECODING, MOST_MORE, PASSES, WINDOW, PassTimes


def climbed(pass_s: Callable[[int], float], max_batch: int = 16, rounds: int = 50) -> PassTimes:
    """After passes as large as they come: while one runs, all else that is in flight waits."""
    times = PassTimes()
    for _ in range(rounds):
        images = min(max_batch, times.limit([max_batch]) - times.worthwhile)
        for size in range(1, images + 1):
            times.record(size, pass_s(size), 0.5 * pass_s(size), scarce=True)
    return times


def test_it_begins_with_little() -> None:
    assert PassTimes().limit([16]) == PASSES + DECODING
    assert PassTimes().limit([16, 16]) == 2 * (PASSES + DECODING)
    assert PassTimes().limit([]) == DECODING  # it is being loaded


def test_large_passes_that_save_nothing_are_not_waited_for() -> None:
    times = climbed(lambda images: 0.025 * images)
    assert times.worthwhile == 1
    assert times.limit([16]) == PASSES + DECODING


@given(fixed_ms=st.floats(0.5, 50), image_ms=st.floats(0.05, 20))
def test_passes_grow_while_that_pays(fixed_ms: float, image_ms: float) -> None:
    """At the end none twice as large would take a tenth less for an image."""

    def pass_s(images: int) -> float:
        return (fixed_ms + image_ms * images) / 1000

    size = climbed(pass_s).worthwhile
    twice = min(16, 2 * size)
    assert pass_s(size) / size <= 1.1 * pass_s(twice) / twice * (1 + 1e-9)


def test_no_more_than_a_replica_can_batch() -> None:
    times = climbed(lambda images: 0.02 + 0.0001 * images)
    assert times.worthwhile >= 14
    assert times.limit([4]) == PASSES * 4 + 4


def test_a_device_that_changed_is_learned_anew() -> None:
    times = climbed(lambda images: 0.02 + 0.0001 * images)
    for _ in range(WINDOW):
        for size in range(1, 17):
            times.record(size, 0.02 * size, 0.01, scarce=True)
    assert times.worthwhile == 1


def test_a_device_that_idles_though_frames_wait_gets_more() -> None:
    times = PassTimes()
    for _ in range(100):
        times.record(1, 0.01, 0.0, scarce=True)
    more = times.limit([1])
    assert PASSES + DECODING < more <= PASSES + DECODING + MOST_MORE
    for _ in range(100):  # they wait for longer than a pass: that was too many
        times.record(1, 0.01, 0.02, scarce=True)
    assert times.limit([1]) == PASSES + DECODING


def test_no_frames_wait_where_nobody_asks() -> None:
    times = PassTimes()
    for _ in range(100):
        times.record(1, 0.01, 0.0, scarce=False)
    assert times.limit([1]) == PASSES + DECODING

from hypothesis import given
from hypothesis import strategies as st

from control_plane.fetching.pauses import FIRST_S, MAX_S, pause_s


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_bounded_and_grow(failures: int, chance: float) -> None:
    assert FIRST_S / 2 <= pause_s(failures, chance) <= MAX_S
    assert pause_s(failures, chance) <= pause_s(failures + 1, chance)


def test_the_first_is_short() -> None:
    assert pause_s(1, 0.0) == FIRST_S
    assert pause_s(100, 0.0) == MAX_S

"""Cores as `--devices` names them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.hardware import cpu_sets
from yolopool.errors import InvalidOption


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_text_is_read_as_what_it_was_written_of(cores: set[int]) -> None:
    ascending = tuple(sorted(cores))
    assert cpu_sets.parse(cpu_sets.text_of(ascending)) == ascending


def test_texts() -> None:
    assert cpu_sets.text_of((0, 1, 2, 5, 8, 9)) == "0-2+5+8-9"
    assert cpu_sets.parse("4") == (4,)


@given(st.integers(1, 6), st.integers(1, 6), st.sets(st.integers(0, 60), min_size=36))
def test_sets_are_disjoint_and_in_order(workers: int, each: int, allowed: set[int]) -> None:
    ascending = sorted(allowed)
    found = cpu_sets.sets(f"{workers}x{each}", ascending)
    assert [len(one) for one in found] == [each] * workers
    assert [core for one in found for core in one] == ascending[: workers * each]


@pytest.mark.parametrize("text", ["", "x", "3-1", "0-", "a", "1,2", "-1", "0x2", "2x0", "3x2", "4"])
def test_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        cpu_sets.sets(text, (0, 1, 2, 3))

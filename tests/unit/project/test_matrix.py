"""Samples of long matrices rotate: nothing is left out for ever."""

import pytest

from tests.matrix import sample_of


@pytest.mark.parametrize(("count", "sample"), [(7, 2), (8, 2), (24, 6), (3, 1), (5, 5), (2, 9)])
def test_consecutive_seeds_run_every_case(count: int, sample: int) -> None:
    for start in (0, 5, 738_000):
        days = -(-count // sample)
        samples = [
            sample_of("tests/test_a.py::test", count, sample, start + i) for i in range(days)
        ]
        assert all(len(one) == min(sample, count) for one in samples)
        assert set.union(*samples) == set(range(count))


def test_a_seed_is_a_sample_and_tests_differ() -> None:
    assert sample_of("a", 24, 6, 3) == sample_of("a", 24, 6, 3)
    assert sample_of("a", 24, 6, 3) != sample_of("b", 24, 6, 3)

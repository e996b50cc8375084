"""Figures of the benchmarks: quantiles, spreads, comparisons, matching, results, roles."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import compare, hardware, matching, results, statistics
from benchmarks.harness.matching import Detected, Labelled, Score

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], fraction: float) -> None:
    expected = float(np.quantile(values, fraction))
    assert math.isclose(statistics.quantile(values, fraction), expected, abs_tol=1e-6)


def test_quantile_of_nothing_and_of_no_fraction_are_refused() -> None:
    with pytest.raises(ValueError, match="no request"):
        statistics.quantile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.quantile([1.0], 50)
    with pytest.raises(ValueError, match="no request"):
        statistics.summarize([])


def test_a_summary_and_a_spread() -> None:
    summary = statistics.summarize([float(value) for value in range(101)])
    assert summary == statistics.Summary(101, 50.0, 50.0, 90.0, 99.0, 100.0)
    runs = statistics.spread([3.0, 1.0, 2.0])
    assert runs == statistics.Spread(3, 2.0, 1.0, 3.0)
    assert str(runs) == "2 [1-3]"
    assert str(statistics.spread([2.0])) == "2"


@given(st.lists(FINITE, min_size=1, max_size=20), st.integers(0, 9))
def test_a_bootstrap_stays_within_its_samples_and_repeats(values: list[float], seed: int) -> None:
    def middle(groups: object) -> float:
        assert isinstance(groups, list)
        return statistics.median(groups[0])

    first = statistics.bootstrap([values], middle, seed, rounds=50)
    assert first == statistics.bootstrap([values], middle, seed, rounds=50)
    assert min(values) <= first.low <= first.high <= max(values)


def test_a_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        statistics.bootstrap([[1.0], []], compare.ratio_of_medians, 0)


async def test_runs_alternate_and_reverse_their_order_each_round() -> None:
    order: list[str] = []

    async def run(name: str, figure: float) -> float:
        order.append(name)
        return figure

    a, b = await compare.alternate(lambda: run("A", 1.0), lambda: run("B", 2.0), rounds=3)
    assert "".join(order) == "ABBAAB"
    assert (a, b) == ((1.0,) * 3, (2.0,) * 3)


def test_a_comparison_shows_ratio_and_spread() -> None:
    shown = compare.compare([10.0, 12.0, 11.0], [20.0, 18.0, 22.0])
    assert shown.ratio == pytest.approx(20 / 11)
    assert shown.by_round == statistics.Spread(3, 2.0, 1.5, 2.0)
    assert shown.interval.low <= shown.ratio <= shown.interval.high
    assert str(shown).startswith("B/A 1.818 (rounds 1.500-2.000, ")
    with pytest.raises(ValueError, match="pairs"):
        compare.compare([1.0], [])


SQUARE = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (SQUARE, 1.0),
        ((0.0, 0.0, 10.0, 5.0), 0.5),
        ((5.0, 0.0, 15.0, 10.0), 1 / 3),
        ((10.0, 0.0, 20.0, 10.0), 0.0),
        ((4.0, 4.0, 4.0, 4.0), 0.0),
    ],
)
def test_overlap(other: matching.Corners, expected: float) -> None:
    assert matching.overlap(SQUARE, other) == pytest.approx(expected)
    assert matching.overlap(other, SQUARE) == pytest.approx(expected)


def test_a_label_is_found_once_by_the_most_confident_box_of_its_class() -> None:
    labels = [Labelled("circle", SQUARE), Labelled("star", (20.0, 0.0, 30.0, 10.0))]
    detections = [
        Detected("circle", (0.0, 0.0, 10.0, 9.0), 0.6),  # a second box on the same object
        Detected("circle", SQUARE, 0.9),
        Detected("star", SQUARE, 0.8),  # right place, wrong class
    ]
    score = matching.match(labels, detections)
    assert score == Score(labelled=2, found=1, false_positives=2)
    assert score.recall == 0.5
    assert score.precision == pytest.approx(1 / 3)


def test_a_box_takes_the_label_it_overlaps_most() -> None:
    labels = [Labelled("circle", (0.0, 0.0, 10.0, 8.0)), Labelled("circle", SQUARE)]
    detections = [Detected("circle", SQUARE, 0.9), Detected("circle", (0.0, 0.0, 10.0, 7.0), 0.8)]
    assert matching.match(labels, detections) == Score(2, 2, 0)


def test_too_little_overlap_is_a_miss_and_a_false_positive() -> None:
    found = [Detected("circle", (0.0, 0.0, 10.0, 4.9), 0.9)]
    assert matching.match([Labelled("circle", SQUARE)], found) == Score(1, 0, 1)


def test_scores_add_up_and_nothing_is_perfect() -> None:
    assert matching.total([Score(2, 1, 0), Score(3, 3, 1)]) == Score(5, 4, 1)
    assert (Score(0, 0, 0).recall, Score(0, 0, 0).precision) == (1.0, 1.0)


def test_a_result_is_read_as_it_was_written_and_never_overwritten(tmp_path: Path) -> None:
    result = results.Result(
        scenario="quick",
        started_at="2026-01-02T03:04:05Z",
        settings={"seconds": 8.0},
        hardware=hardware.describe(),
        tables={"loads": ({"load": "c=1", "p50_ms": 1.5, "requests": 12, "low": None},)},
        checks=(results.Check("no errors", True, "none"),),
    )
    first, second = results.write(result, tmp_path), results.write(result, tmp_path)
    assert [first.name, second.name] == ["quick-2026-01-02.json", "quick-2026-01-02-2.json"]
    assert results.read(first) == result
    assert "| c=1  | 1.5    | 12       | -   |" in results.report(result)
    first.write_text(first.read_text().replace('"schema": 1', '"schema": 0'))
    with pytest.raises(ValueError, match="measure again"):
        results.read(first)


def test_fields_that_a_newer_writer_added_are_ignored(tmp_path: Path) -> None:
    result = results.Result("quick", "2026-01-02", {}, hardware.describe(), {})
    path = results.write(result, tmp_path)
    path.write_text(path.read_text().replace('"hardware": {', '"hardware": {"colour": "grey",'))
    assert results.read(path) == result
    assert result.passed

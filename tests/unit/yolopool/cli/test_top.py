"""`yolopool top`: bars, lines of bars, and several control planes as one."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from yolopool.cli.top import BAR, Glance, bar, rendered, sparks, summed
from yolopool.client.fleet_records import Fleet, VersionStatistics

FLEET = Fleet("c", "1", "c1", "c1", True, *[1] * 14)
A = VersionStatistics("a@1", 10.0, 2.0, 20.0, 40.0, 4.0, 8.0, 2.0, 0.5, (0.0, 10.0))


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ((0, 0, 0, 100), "·" * BAR),
        ((50, 25, 100, 100), "█" * 9 + "▓" * 5 + "░" * 4),
        ((100, 0, 100, 100), "█" * BAR),
        ((30, 20, 200, 100), "███▓░░░░░░░░░░░░░░"),  # beyond its budget: of what is used
        ((0, 0, 0, 0), "·" * BAR),
    ],
)
def test_a_ledger_as_a_bar(parts: tuple[int, int, int, int], shown: str) -> None:
    drawn = bar(*parts).plain
    assert len(drawn) == BAR
    assert drawn.rstrip("·").count("█") == shown.count("█")
    assert drawn.count("·") == shown.count("·")


def test_a_line_of_bars() -> None:
    assert sparks((0.0, 1.0, 4.0, 8.0)) == " ▂▅█"
    assert sparks((0.0, 0.0)) == sparks(()) == ""


def test_several_control_planes_are_one() -> None:
    other = replace(
        A, requests_per_s=2.0, errors_per_s=0.0, p99_ms=80.0, queue_ms=14.0, hit_ratio=1.0
    )
    (both,) = summed([A, other])
    assert (both.requests_per_s, both.errors_per_s) == (12.0, 2.0)
    assert both.queue_ms == pytest.approx((8 * 4.0 + 2 * 14.0) / 10)
    assert both.hit_ratio == pytest.approx((10 * 0.5 + 2 * 1.0) / 12)
    assert (both.p50_ms, both.p99_ms) == (20.0, 80.0)
    assert both.steps == (0.0, 20.0)
    first, second = summed([A, replace(A, model="b@1", requests_per_s=11.0)])
    assert (first.model, second.model) == ("b@1", "a@1")


def test_in_a_narrow_terminal_names_are_cut_and_no_figure_is() -> None:
    name = "team/warehouse-forklifts-night-shift-v2@1"
    told = VersionStatistics(
        name, 1234.5, 56.7, 1234.0, 5678.0, 432.1, 987.6, 16.0, 1.0, (1.0,) * 12
    )
    shown = Console(width=80, record=True, file=io.StringIO())
    shown.print(rendered(Glance(FLEET, (), (told,))))
    text = shown.export_text()
    (line,) = [line for line in text.splitlines() if line.startswith("team/")]
    first, *figures = line.split()
    assert figures == [
        "-",
        "1234.5",
        "56.7",
        "1234",
        "5678",
        "432",
        "988",
        "16.0",
        "100%",
        "█" * 12,
    ]
    assert first.endswith("…")
    assert name.startswith(first[:-1])

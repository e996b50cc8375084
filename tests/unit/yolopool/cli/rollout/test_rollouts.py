"""How the command line reads and shows rollouts."""

from dataclasses import replace

import pytest
from rich.console import Console

from yolopool.cli.rollout import rollouts
from yolopool.client.rollout.rollout_records import (
    Comparison,
    Counted,
    Measure,
    Rollout,
    RolloutReport,
)
from yolopool.errors import InvalidOption

ONE = Rollout(
    "r", "shapes:stable", 3, 4, (0, 100, 1000), 1, 50, 1.0, 2.0, "ann", "", "", False, (), (), 200,
    60.0, 0.01, {},
)  # fmt: skip


def shown(table: object) -> str:
    console = Console(width=200, record=True)
    console.print(table)
    return console.export_text()


def test_shares_are_read_in_percent() -> None:
    assert [rollouts.per_mille(text) for text in ("1", "0.1", " 50% ", "100", "0")] == [
        10, 1, 500, 1000, 0,
    ]  # fmt: skip
    for text in ("-1", "101", "0.01", "x", "nan"):
        with pytest.raises(InvalidOption):
            rollouts.per_mille(text)


def test_tolerances_are_read_by_name() -> None:
    assert rollouts.allowed(["unmatched=0.1", "shift_px=3"]) == {"unmatched": 0.1, "shift_px": 3.0}
    for text in ("unmatched", "unmatched=x", "nothing=0.1"):
        with pytest.raises(InvalidOption, match="unmatched"):
            rollouts.allowed([text])


def test_where_a_rollout_is() -> None:
    assert rollouts.share(ONE) == "at 10 %"
    assert rollouts.share(replace(ONE, step=0)) == "in shadow"
    assert rollouts.share(replace(ONE, outcome="ROLLED_BACK")) == "rolled back, moving"
    assert rollouts.share(replace(ONE, outcome="DONE", settled=True)) == "done"


def test_a_rollout_and_what_it_waits_for() -> None:
    text = shown(rollouts.table(ONE))
    assert "shapes:stable" in text
    assert "0% 10% 100%" in text
    report = RolloutReport(ONE, Comparison(requests=7, images=5), ("20 s of 60 s",), 3)
    lines = list(rollouts._lines(report))
    assert lines[0] == (
        "7 requests and 5 images compared, 5 % of the requests run on both, 3 not run (busy)"
    )
    assert lines[1] == "waits for 20 s of 60 s"
    ended = replace(ONE, outcome="ROLLED_BACK", reasons=("shift: far",))
    assert list(rollouts._lines(RolloutReport(ended))) == ["because shift: far"]


def test_measures_and_counts() -> None:
    found = Comparison(
        (Measure("shift", "BEYOND", 1200, "60% of boxes too far right", "half of them 1 px"),),
        sizes=(Counted("small", 3, 2, 1),),
    )
    text = shown(rollouts.measures(found))
    assert "beyond" in text
    assert "1,200" in text
    assert "60% of boxes too far right" in text
    assert shown(rollouts.counts("SIZE", found.sizes, matched=True)).split()[-4:] == [
        "small", "3", "2", "1",
    ]  # fmt: skip


def test_the_candidate_is_a_version_of_the_alias_s_model() -> None:
    assert rollouts._number("shapes:stable", "4") == 4
    assert rollouts._number("shapes:stable", "shapes@4") == 4
    for text in ("bolts@4", "shapes", "shapes:next"):
        with pytest.raises(InvalidOption, match="shapes@4"):
            rollouts._number("shapes:stable", text)

"""Watches as a table: a pattern is shown as it was given."""

import io

from rich.console import Console

from yolopool.cli.sources.watches import table
from yolopool.client.sources.watch_records import Watch


def test_brackets_of_a_pattern_are_no_style() -> None:
    watch = Watch(
        "line7", "s3://weights/[a]/", "parts", ("best-[ab].pt",), "", 30.0, 5.0, 3, "ann", ""
    )
    shown = Console(file=io.StringIO(), width=120)
    shown.print(table((watch,)))
    assert isinstance(shown.file, io.StringIO)
    heads, line = shown.file.getvalue().splitlines()
    assert heads.split() == ["WATCH", "MODEL", "FROM", "FILES", "EVERY", "KNOWN", "ERROR"]
    assert line.split() == [
        "line7",
        "parts",
        "s3://weights/[a]/",
        "best-[ab].pt",
        "30",
        "s",
        "3",
        "-",
    ]

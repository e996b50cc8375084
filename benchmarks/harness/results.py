"""Results: one JSON file a run of a scenario, in a form that stays, and a table for people."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.hardware import ROOT, Gpu, Hardware

# Raised when a field changes its meaning or goes; new fields do not raise it.
SCHEMA = 1
FOLDER = ROOT / "benchmarks" / "results"

Figure = str | int | float | bool | None
Row = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Check:
    """Something the scenario demands, and whether it held."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """A finished scenario. Tables by title; rows are flat, units are in their columns' names."""

    scenario: str
    started_at: str  # ISO 8601, UTC
    settings: Mapping[str, Figure]
    hardware: Hardware
    tables: Mapping[str, tuple[Row, ...]]
    checks: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flag every scenario has."""
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the JSON file")


def now() -> str:
    """The time of day as results have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def settings_of(options: argparse.Namespace) -> dict[str, Figure]:
    """The command line as a result keeps it: without the places of files on this machine."""
    return {
        name: value
        for name, value in sorted(vars(options).items())
        if isinstance(value, str | int | float)
    }


def write(result: Result, folder: Path = FOLDER) -> Path:
    """Writes <scenario>-<date>.json, or -2, -3, ... where one of that day is there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{result.scenario}-{result.started_at[:10]}"
    path, count = folder / f"{stem}.json", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.json"
    path.write_text(json.dumps({"schema": SCHEMA, **asdict(result)}, indent=2) + "\n")
    return path


def read(path: Path) -> Result:
    """Reads what `write` wrote; ValueError if it is of another schema."""
    data: dict[str, Any] = json.loads(path.read_text())
    schema = data.get("schema")
    if schema != SCHEMA:
        raise ValueError(f"{path.name} has schema {schema}, this reads {SCHEMA}: measure again")
    hardware = _known(Hardware, data["hardware"])
    hardware["flags"] = tuple(hardware["flags"])
    hardware["gpus"] = tuple(Gpu(**_known(Gpu, gpu)) for gpu in hardware["gpus"])
    return Result(
        scenario=data["scenario"],
        started_at=data["started_at"],
        settings=data["settings"],
        hardware=Hardware(**hardware),
        tables={title: tuple(rows) for title, rows in data["tables"].items()},
        checks=tuple(Check(**_known(Check, check)) for check in data["checks"]),
    )


def _known(shape: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fields that a newer writer added."""
    return {name: data[name] for name in shape.__dataclass_fields__ if name in data}


def table(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """A markdown table of the rows; `columns`: which, in order (all that occur, if empty)."""
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    lines = [_line(line, widths) for line in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(text.ljust(w) for text, w in zip(cells, widths, strict=True)) + " |"


def _cell(figure: Figure) -> str:
    if figure is None:
        return "-"
    if isinstance(figure, float):
        return f"{figure:.3g}" if abs(figure) < 100 else f"{figure:,.0f}"
    return f"{figure:,}" if type(figure) is int else str(figure)


def publish(result: Result, folder: Path = FOLDER) -> int:
    """Prints a result and writes it; answers the exit status: 1 if a check failed."""
    print(report(result))
    print(f"\nwritten to {write(result, folder)}")
    return 0 if result.passed else 1


def report(result: Result) -> str:
    """The whole result as markdown."""
    machine = result.hardware
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    dirty = " and uncommitted changes" if machine.dirty else ""
    lines = [
        f"## {result.scenario}, {result.started_at}",
        f"{machine.cpu}, {machine.cores} cores, {gpus}, load {machine.load_average} before; "
        f"commit {machine.commit[:12]}{dirty}",
        "settings: " + ", ".join(f"{name}={value}" for name, value in result.settings.items()),
        *(f"\n### {title}\n\n{table(rows)}" for title, rows in result.tables.items()),
        "",
        *(f"{'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}" for c in result.checks),
    ]
    return "\n".join(lines).rstrip()

"""docs/limits.md says what the code does, and each of its limits has a test."""

import importlib
import re

import pytest
from pydantic_settings import BaseSettings

from control_plane.settings import Settings
from importer.settings import Settings as ImporterSettings
from tests.page_blocks import ROOT
from worker.settings import Settings as WorkerSettings

PAGE = (ROOT / "docs" / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| What", "| From"))
]
LIMITS = [row for row in ROWS if len(row) == 5]
TIMES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "s": 1}
NUMBER = r"([\d,.]+) ?(KiB|MiB|GiB|s\b)?"
CONSTANT = re.compile(NUMBER + r"(?:<!-- ([\w.]+)\.(\w+) -->)")
FLAG = re.compile(r"`--([a-z-]+)`")
PROGRAMS: dict[str, type[BaseSettings]] = {"workers": WorkerSettings, "importers": ImporterSettings}


def value_of(number: str, unit: str | None) -> float:
    return float(number.replace(",", "")) * TIMES[unit or ""]


def test_the_page_has_its_rows() -> None:
    assert len(LIMITS) >= 40
    assert all(len(row) in (3, 5) for row in ROWS), [row for row in ROWS if len(row) not in (3, 5)]


@pytest.mark.parametrize(
    ("number", "unit", "module", "name"), CONSTANT.findall(PAGE), ids=lambda text: str(text)
)
def test_a_figure_is_a_constant(number: str, unit: str, module: str, name: str) -> None:
    assert value_of(number, unit) == getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[0][:40])
def test_a_limit_is_a_default_or_a_constant(row: list[str]) -> None:
    what, limit, set_by, *_ = row
    flags = FLAG.findall(set_by)
    if not flags:
        return
    only = re.search(r"` of (workers|importers)", set_by)
    settings: type[BaseSettings] = PROGRAMS[only[1]] if only else Settings
    default = settings.model_fields[flags[0].replace("-", "_")].default
    if default:  # of one that is 0, the page says what it then is
        found = re.match(NUMBER, limit)
        assert found is not None, what
        assert value_of(*found.groups()) == default, what


def test_each_limit_has_a_test() -> None:
    there = set[str]()
    for path in (ROOT / "tests").rglob("*.py"):
        there |= set(re.findall(r"def (test_\w+)", path.read_text()))
    missing = {
        name for row in LIMITS for name in re.findall(r"test_\w+", row[4]) if name not in there
    }
    assert not missing
    assert all("test_" in row[4] for row in LIMITS)

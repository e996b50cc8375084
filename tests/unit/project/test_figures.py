"""Figures of the pages that are constants of the code stand in the code alone.

A page writes `600<!-- worker.process.watchdog.LOCKED_S --> s`. Readers see the number; this test
compares it with the constant.
"""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FIGURE = re.compile(r"([\d.,]+)<!-- ([\w.]+)\.(\w+) -->")
FIGURES = [
    pytest.param(number, module, name, id=f"{page.stem}-{name}")
    for page in sorted(ROOT.glob("docs/*.md"))
    for number, module, name in FIGURE.findall(page.read_text())
]


def test_there_are_figures() -> None:
    assert len(FIGURES) >= 8


@pytest.mark.parametrize(("number", "module", "name"), FIGURES)
def test_a_page_says_what_the_code_does(number: str, module: str, name: str) -> None:
    assert float(number.replace(",", "")) == pytest.approx(
        getattr(importlib.import_module(module), name)
    )

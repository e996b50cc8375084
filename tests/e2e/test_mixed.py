"""Answers of a pool under mixed load are those of each request alone."""

from pathlib import Path

import pytest

from benchmarks import mixed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_no_answer_is_wrong_or_swapped(tmp_path: Path) -> None:
    arguments = ["--requests=300", "--distinct=60", f"--results={tmp_path}"]
    assert mixed.main(arguments) == 0

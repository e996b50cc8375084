"""Answers of a pool under mixed load are those of each request alone."""

from pathlib import Path

import pytest

from benchmarks import mixed
from worker.hardware.host import Host

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("devices", ["cpu", "cpu:2x1"])
def test_no_answer_is_wrong_or_swapped(tmp_path: Path, devices: str) -> None:
    if devices == "cpu:2x1" and len(Host().allowed()) < 2:
        pytest.skip("two workers with a core each need two cores")
    few = ["--requests=200", "--distinct=50", "--models=4"]
    assert mixed.main([*few, f"--results={tmp_path}", f"--devices={devices}"]) == 0


@pytest.mark.matrix(sample=0)
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("requests", [20_000])
def test_no_answer_of_many_is_wrong_or_swapped(tmp_path: Path, requests: int) -> None:
    """The first test of this file at length: in a full run alone."""
    assert mixed.main([f"--requests={requests}", f"--results={tmp_path}"]) == 0

"""The marker that runs a sample of a test's cases, in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.matrix import sample_of

ROOT = Path(__file__).parents[3]
SUITE = """
import pytest

@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("number", range(6))
def test_of_many(number):
    pass

def test_alone():
    pass
"""

OF_ONE = """
import pytest

@pytest.mark.matrix(sample=1, of="odd files")
def test_one():
    pass

@pytest.mark.matrix(sample=1, of="odd files")
def test_other():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    return tmp_path


def run(folder: Path, *arguments: str, seed: str = "") -> str:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "tests.matrix", "-p", "no:cacheprovider"]
    environ = {name: value for name, value in os.environ.items() if name != "YOLOPOOL_TEST_SEED"}
    done = subprocess.run(
        [*command, "-c", str(folder / "pytest.ini"), *arguments],
        cwd=ROOT,
        # The plugins that are installed take longer to import than the suite to run.
        env=environ
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        | ({"YOLOPOOL_TEST_SEED": seed} if seed else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def cases(told: str) -> list[str]:
    return [line.split()[0].rpartition("::")[2] for line in told.splitlines() if " PASSED" in line]


def test_a_sample_is_run_and_the_rest_is_not_skipped(folder: Path) -> None:
    told = run(folder, str(folder))
    assert "3 passed, 4 deselected" in told
    assert "YOLOPOOL_TEST_SEED=" in told


def test_three_seeds_run_all_six(folder: Path) -> None:
    by_seed = [sample_of("test_suite.py::test_of_many", 6, 2, seed) for seed in (1, 2, 3)]
    assert set.union(*by_seed) == set(range(6))
    told = run(folder, str(folder), seed="2")
    assert cases(told) == [*(f"test_of_many[{n}]" for n in sorted(by_seed[1])), "test_alone"]


def test_full_runs_all(folder: Path) -> None:
    assert "7 passed" in run(folder, "--full", str(folder))


def test_a_case_that_is_named_is_run(folder: Path) -> None:
    name = "test_suite.py::test_of_many"
    left_out = min(set(range(6)) - sample_of(name, 6, 2, seed=2))
    told = run(folder, f"{folder}/{name}[{left_out}]", seed="2")
    assert cases(told) == [f"test_of_many[{left_out}]"]


def test_tests_may_be_the_cases_of_one_matrix(folder: Path) -> None:
    (folder / "test_suite.py").write_text(OF_ONE)
    told = [cases(run(folder, str(folder), seed=seed)) for seed in ("1", "2")]
    assert sorted(told) == [["test_one"], ["test_other"]]
    (left_out,) = told[1]  # by the first seed, unless it is named
    assert cases(run(folder, f"{folder}/test_suite.py::{left_out}", seed="1")) == [left_out]

"""The plugin that keeps a run with skipped tests from looking green, in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SUITE = """
import pytest

@pytest.mark.gpu
def test_of_a_gpu():
    pytest.skip("no GPU here")

def test_that_runs():
    pass
"""
SKIPPED = """
def test_that_lacks_something():
    pytest.skip("no server here")
"""


def run(folder: Path, suite: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (folder / "test_suite.py").write_text(suite)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.no_skips",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, "-c", str(folder / "pytest.ini"), str(folder)],
        cwd=ROOT,
        # The plugins that are installed take longer to import than the suite to run.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_skipped_gpu_test_is_fine(tmp_path: Path) -> None:
    assert run(tmp_path, SUITE).returncode == 0


def test_any_other_skip_fails_the_run_and_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE + SKIPPED)
    assert done.returncode == 1
    assert "test_suite.py::test_that_lacks_something" in done.stdout


def test_a_module_skipped_as_a_whole_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import pytest\npytest.skip('all of it', allow_module_level=True)\n"
    )
    done = run(tmp_path, SUITE)
    assert done.returncode == 1
    assert "test_other.py" in done.stdout

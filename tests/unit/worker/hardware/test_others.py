"""Whether other processes leave a core free, on hosts made of files."""

import os
from pathlib import Path

import pytest

from worker.hardware import host as host_module
from worker.hardware.host import LOOKS, others_leave_time


def host_of(folder: Path, loadavg: str, states: str) -> Path:
    """With a thread of this process for each letter, in that state."""
    for number, state in enumerate(states):
        task = folder / "self" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{number} (a R) b) {state} 1 2 3")
    if loadavg:
        (folder / "loadavg").write_text(loadavg)
    return folder


@pytest.mark.parametrize(
    ("running", "states", "leave"),
    [
        (0, "S", True),
        (4, "RRS", True),  # two of them are its own
        (5, "RRS", True),
        (6, "RRS", False),
        (40, "S", False),
    ],
)
def test_what_runs_beside_its_own_threads_counts(
    running: int, states: str, leave: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    host = host_of(tmp_path, f"9.00 9.00 9.00 {running}/432 13364\n", states)
    assert others_leave_time(host) is leave


@pytest.mark.parametrize(("busy_looks", "leave"), [(LOOKS // 2, True), (LOOKS // 2 + 1, False)])
def test_one_look_at_a_wrong_moment_decides_nothing(
    busy_looks: int, leave: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([False] * busy_looks + [True] * LOOKS)
    monkeypatch.setattr(host_module, "_leave_time_now", lambda _: next(looks))
    assert others_leave_time() is leave


@pytest.mark.parametrize("loadavg", ["", "\n", "0.00 0.00 0.00", "0.00 0.00 0.00 -/- 0"])
def test_a_kernel_that_says_nothing_leaves_it_open(loadavg: str, tmp_path: Path) -> None:
    assert others_leave_time(host_of(tmp_path, loadavg, ""))


def test_this_host_says_something() -> None:
    assert others_leave_time() in (True, False)

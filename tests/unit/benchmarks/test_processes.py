"""Reading processes from outside, and finding the roles in a pool's process tree."""

import os
from pathlib import Path

import pytest

from benchmarks.harness.pool import PoolFlags, role_of, roles_of
from benchmarks.harness.processes import CpuMeter, Process, by_role, descendants, memory

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ((PYTHON, "-m", "control_plane", "--port", "0"), "control_plane"),
        ((PYTHON, "-m", "worker", "--devices", "auto"), "worker_supervisor"),
        ((PYTHON, "-m", "worker", "--device", "cpu"), "worker"),
        ((PYTHON, "-m", "worker", "--device=cpu"), "worker"),
        ((PYTHON, "-I", "-m", "importer"), "importer"),
        (("/opt/redis/redis-server unixsocket:/tmp/redis.sock",), "redis"),
        ((PYTHON, "-c", "from multiprocessing.spawn import spawn_main"), ""),
        (("",), ""),
        ((), ""),
    ],
)
def test_a_role_is_read_from_the_command(command: tuple[str, ...], role: str) -> None:
    assert role_of(command) == role


def test_a_child_that_says_nothing_has_its_parents_role() -> None:
    tree = [
        Process(1, 0, ("yolopool", "up")),
        Process(2, 1, (PYTHON, "-m", "worker")),
        Process(3, 2, (PYTHON, "-m", "worker", "--device", "cpu")),
        Process(4, 3, (PYTHON, "-c", "spawn_main")),
        Process(5, 1, (PYTHON, "-m", "control_plane")),
        Process(6, 5, ("redis-server *:0",)),
    ]
    assert roles_of(tree) == {
        "launcher": (1,),
        "worker_supervisor": (2,),
        "worker": (3, 4),
        "control_plane": (5,),
        "redis": (6,),
    }


def test_this_process_has_memory_and_is_its_own_tree() -> None:
    measured = memory(os.getpid())
    assert 0 < measured.pss_bytes <= measured.rss_bytes
    assert 0 < measured.private_bytes <= measured.rss_bytes
    assert descendants(os.getpid())[0].pid == os.getpid()


def test_a_process_that_has_ended_is_an_error_for_memory_and_free_for_a_meter() -> None:
    gone = 2**22 + 1  # above the highest pid of Linux
    with pytest.raises(ProcessLookupError, match="has ended"):
        memory(gone)
    assert descendants(gone) == ()
    meter = CpuMeter([gone, os.getpid()])
    with pytest.raises(ValueError, match="two readings"):
        meter.used_s()
    meter.read()
    meter.read()
    used = meter.used_s()
    assert used[gone] == 0.0
    assert used[os.getpid()] >= 0.0


def test_cost_per_request_sums_the_processes_of_a_role() -> None:
    assert by_role({1: 1.0, 2: 2.0, 3: 4.0}, {"worker": [1, 2], "redis": [3]}, 10) == {
        "worker": 0.3,
        "redis": 0.4,
    }
    with pytest.raises(ValueError, match="no request finished"):
        by_role({}, {}, 0)


def test_flags_become_arguments() -> None:
    flags = PoolFlags("sim:8", memory_budget="4GiB", demo=False, extra=("--x",))
    assert flags.arguments(50051, Path("d")) == [
        *("up", "--devices", "sim:8", "--port", "50051", "--http-port", "0"),
        *("--data-dir", "d"),
        *("--memory-budget", "4GiB", "--no-demo", "--x"),
    ]

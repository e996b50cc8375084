"""When a dead worker process is started again, and with which command."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.hardware.devices import Device
from worker.process.restart_policy import MAX_DELAY_S, Restart, after_exit
from worker.process.supervisor import supervisor_of, worker_command
from worker.settings import read_settings
from yolopool.errors import InvalidOption
from yolopool.tls import authority

SIM = Device("sim", "sim:1", "simulated", 0, {})


def test_delays_double_up_to_half_a_minute() -> None:
    attempt, delays = 0, []
    for _ in range(8):
        restart = after_exit(attempt, ran_s=0.1)
        attempt = restart.attempt
        delays.append(restart.delay_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_steady_minute_is_a_fresh_start() -> None:
    assert after_exit(9, ran_s=60) == Restart(1, 0.5)
    assert after_exit(9, ran_s=59.9) == Restart(10, 30)


@given(attempt=st.integers(0, 10**12), ran_s=st.floats(0, 1e12))
def test_delay_is_always_bounded(attempt: int, ran_s: float) -> None:
    assert 0.5 <= after_exit(attempt, ran_s).delay_s <= MAX_DELAY_S


def test_a_child_gets_our_settings_and_its_own_device() -> None:
    settings = read_settings(["--control-planes=a:1,b:2", "--id=left", "--devices=sim:2"])
    command = worker_command(settings, SIM, settings.id_of(SIM.id, alone=False))
    assert command[:3] == [sys.executable, "-m", "worker"]
    child = read_settings(command[3:])
    assert child.device == "sim:1"
    assert child.control_planes == ("a:1", "b:2")
    assert child.die_with_parent
    assert child.worker_id == "left-sim-1"
    alone = worker_command(settings, SIM, settings.id_of(SIM.id, alone=True))
    assert read_settings(alone[3:]).worker_id == "left"


def test_a_worker_keeps_its_id_whatever_becomes_of_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its supervisor could not start it again, and would end with all its workers."""
    monkeypatch.setattr("socket.gethostname", lambda: "vm-3")
    authority.create(tmp_path, 1e9)
    authority.issue(tmp_path, "gpu-1", "worker", ["127.0.0.1"], 1.0, 1e9)
    own = [f"--tls-cert={tmp_path / 'gpu-1.pem'}", f"--tls-key={tmp_path / 'gpu-1.key'}"]
    settings = read_settings([*own, "--devices=sim:2"])
    supervisor = supervisor_of(settings, {}, time.monotonic)
    (tmp_path / "gpu-1.pem").write_text("half written")
    assert read_settings(list(supervisor.command(SIM))[3:]).id == "gpu-1-vm-3-sim-1"


@pytest.mark.parametrize("flags", [["--port=1234"], ["--advertise=a:1"]])
def test_several_workers_do_not_share_a_port(flags: list[str]) -> None:
    settings = read_settings(["--devices=sim:2", *flags])
    with pytest.raises(InvalidOption, match="2 devices"):
        supervisor_of(settings, {}, time.monotonic)


def test_no_device_is_no_pool() -> None:
    with pytest.raises(InvalidOption, match="names no device"):
        supervisor_of(read_settings(["--devices=sim:0"]), {}, time.monotonic)

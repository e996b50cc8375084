"""The supervisor with real child processes: bound, restarted, and none left behind."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.waiting import becomes
from worker.hardware.devices import Device, discover
from worker.process import restart_policy
from worker.process.supervisor import ProcessExit, Supervisor

pytestmark = pytest.mark.e2e

# Writes its environment to a file once it can be signalled, then waits for signals.
CHILD = """
import os, pathlib, signal, sys
from yolopool.server.parent_death import die_with_parent
die_with_parent()
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready = pathlib.Path(sys.argv[1], str(os.getpid()))
ready.with_suffix(".new").write_text(os.environ["OMP_WAIT_POLICY"] + os.environ["KEPT"])
ready.with_suffix(".new").rename(ready)
while True:
    signal.pause()
"""
PARENT = """
import asyncio, os, sys, time
from worker.hardware.devices import discover
from worker.process.supervisor import Supervisor
from yolopool.server import process
child = [sys.executable, "-c", sys.argv[1], sys.argv[2], sys.argv[3]]
supervisor = Supervisor(
    discover("sim:2", {}),
    lambda device: child,
    environ=os.environ,
    drain_grace_s=0.2,
    clock=time.monotonic,
)
asyncio.run(supervisor.run(process.until_signal))
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped by its new parent or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Running:
    """A supervisor running in this loop, and the children it reports."""

    def __init__(
        self, folder: Path, kind: str = "gentle", command: list[str] | None = None
    ) -> None:
        self.folder = folder
        self.pids: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.stop = asyncio.Event()
        child = command or [sys.executable, "-c", CHILD, str(folder), kind]
        self.supervisor = Supervisor(
            discover("sim:2", {}),
            lambda device: child,
            environ={**os.environ, "KEPT": " and kept"},
            drain_grace_s=0.2,
            clock=time.monotonic,
            started=self._note,
        )
        self.task = asyncio.create_task(self.supervisor.run(self.stop.wait))

    def _note(self, device: Device, pid: int) -> None:
        self.pids.put_nowait((device.id, pid))

    async def child(self) -> tuple[str, int]:
        """The next child that started, once it is ready."""
        device, pid = await self.pids.get()
        await becomes((self.folder / str(pid)).exists)
        return device, pid

    async def end(self) -> None:
        self.stop.set()
        await self.task


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    yield made
    await made.end()


async def test_each_device_has_a_process_with_its_environment(
    running: Running, tmp_path: Path
) -> None:
    children = dict([await running.child(), await running.child()])
    assert set(children) == {"sim:0", "sim:1"}
    for pid in children.values():
        assert (tmp_path / str(pid)).read_text() == "PASSIVE and kept"
    await running.end()
    assert not any(psutil.pid_exists(pid) for pid in children.values())


async def test_a_killed_process_is_started_again_and_its_neighbour_left_alone(
    running: Running,
) -> None:
    children = dict([await running.child(), await running.child()])
    os.kill(children["sim:1"], signal.SIGKILL)
    device, pid = await running.child()
    assert device == "sim:1"
    assert pid != children["sim:1"]
    assert psutil.pid_exists(children["sim:0"])
    assert running.pids.empty()


async def test_a_stubborn_process_is_killed_after_its_grace(tmp_path: Path) -> None:
    running = Running(tmp_path, "stubborn")
    children = dict([await running.child(), await running.child()])
    await running.end()
    assert not any(psutil.pid_exists(pid) for pid in children.values())


async def test_stops_while_nothing_can_be_started(tmp_path: Path) -> None:
    running = Running(tmp_path, command=[str(tmp_path / "missing")])
    await asyncio.sleep(0.1)
    assert not running.task.done()
    await running.end()
    assert running.pids.empty()


# Records two requests as a worker does, and crashes.
CRASHING = """
import faulthandler, os, signal
from worker.process.flight_recorder import FlightRecorder
faulthandler.enable()
recorder = FlightRecorder(int(os.environ["YOLOPOOL_WORKER_BLACK_BOX"]), "incarnation")
with recorder.recording("done"):
    pass
with recorder.recording("r1"), recorder.recording("r2"):
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize(("name", "in_flight"), [("SIGSEGV", {"r1", "r2"}), ("SIGKILL", set())])
async def test_an_exit_is_reported_with_its_last_output_and_the_requests_in_flight(
    name: str, in_flight: set[str]
) -> None:
    reports: asyncio.Queue[ProcessExit] = asyncio.Queue()
    supervisor = Supervisor(
        discover("sim:1", {}),
        lambda device: [sys.executable, "-c", CRASHING.replace("{signal}", name)],
        environ=os.environ,
        drain_grace_s=0.2,
        clock=time.monotonic,
        report=reports.put,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop.wait))
    first, second = await reports.get(), await reports.get()
    stop.set()
    await running
    assert first.ended == f"signal {name}"
    assert ("Segmentation fault" in first.last_output) == (name == "SIGSEGV")
    assert first.incarnation == "incarnation"
    assert set(first.requests) == in_flight
    assert [first.restart.attempt, second.restart.attempt] == [1, 2]


async def test_it_ends_once_each_device_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two devices can't be taken at first; then both can't."""
    monkeypatch.setattr(restart_policy, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(restart_policy, "MAX_DELAY_S", 0.01)
    both = tmp_path / "both"
    child = (
        "import pathlib, sys, time; both = pathlib.Path(sys.argv[1])\n"
        "while sys.argv[2] == 'sim:1' and not both.exists(): time.sleep(0.01)\n"
        "sys.exit(73)"
    )
    reports: asyncio.Queue[ProcessExit] = asyncio.Queue()
    supervisor = Supervisor(
        discover("sim:2", {}),
        lambda device: [sys.executable, "-c", child, str(both), device.id],
        environ=os.environ,
        drain_grace_s=0.2,
        clock=time.monotonic,
        report=reports.put,
    )
    running = asyncio.create_task(supervisor.run(asyncio.Event().wait))
    for _ in range(restart_policy.STARTS + 2):
        assert (await reports.get()).ended == "its device can't be taken"
    assert not running.done()
    both.touch()
    why = await running
    assert why == "; ".join(
        f"sim:{n}: 5 starts in a row failed, its device can't be taken" for n in range(2)
    )


async def test_a_device_that_came_back_is_not_lost_when_the_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_policy, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(restart_policy, "MAX_DELAY_S", 0.01)
    back, gone = tmp_path / "back", tmp_path / "gone"
    child = (
        "import pathlib, signal, sys, time; back, gone = map(pathlib.Path, sys.argv[1:3])\n"
        "while sys.argv[3] == 'sim:1' and not gone.exists(): time.sleep(0.01)\n"
        "if sys.argv[3] == 'sim:0' and back.exists(): back.with_name('serves').touch(), "
        "signal.pause()\n"
        "sys.exit(73)"
    )
    now = 0.0
    reports: asyncio.Queue[ProcessExit] = asyncio.Queue()
    supervisor = Supervisor(
        discover("sim:2", {}),
        lambda device: [sys.executable, "-c", child, str(back), str(gone), device.id],
        environ=os.environ,
        drain_grace_s=0.2,
        clock=lambda: now,
        report=reports.put,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop.wait))
    for _ in range(restart_policy.STARTS):
        assert (await reports.get()).device.id == "sim:0"
    back.touch()
    await becomes((tmp_path / "serves").exists)
    while not reports.empty():
        reports.get_nowait()
    now += restart_policy.STEADY_S
    gone.touch()
    for _ in range(restart_policy.STARTS + 1):
        assert (await asyncio.wait_for(reports.get(), 10)).device.id == "sim:1"
    assert not running.done()
    stop.set()
    assert await running == ""


# A worker that serves, and whose device fails then.
FAILING = """
import os, sys
from worker.process.flight_recorder import FlightRecorder
FlightRecorder(int(os.environ["YOLOPOOL_WORKER_BLACK_BOX"]), "incarnation")
sys.exit(72)
"""


async def test_a_device_that_fails_now_and_then_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restart_policy, "FIRST_DELAY_S", 0.01)
    seconds = itertools.count(0, restart_policy.STEADY_S)
    reports: asyncio.Queue[ProcessExit] = asyncio.Queue()
    supervisor = Supervisor(
        discover("sim:1", {}),
        lambda device: [sys.executable, "-c", FAILING],
        environ=os.environ,
        drain_grace_s=0.2,
        clock=lambda: next(seconds),
        report=reports.put,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop.wait))
    for _ in range(restart_policy.STARTS + 1):
        assert (await asyncio.wait_for(reports.get(), 10)).ended == "its device failed"
    assert not running.done()
    stop.set()
    assert await running == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_however_the_supervisor_ends_no_child_survives(
    tmp_path: Path, number: signal.Signals
) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, CHILD, str(tmp_path), "gentle"),
        env={**os.environ, "KEPT": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    lines = [json.loads(await parent.stdout.readline()) for _ in range(2)]
    assert {line["device"] for line in lines} == {"sim:0", "sim:1"}
    assert {line["event"] for line in lines} == {"worker"}
    for line in lines:
        await becomes((tmp_path / str(line["pid"])).exists)
    parent.send_signal(number)
    code = await parent.wait()
    assert code == (-number if number == signal.SIGKILL else 0)
    for line in lines:
        await becomes(partial(is_gone, line["pid"]))


LOUD = """
import pathlib, signal, sys
sys.stderr.write("x" * 3_000_000)
sys.stderr.flush()
pathlib.Path(sys.argv[1], sys.argv[2]).touch()
signal.pause()
"""


async def test_nobody_waits_for_a_reader_that_stands_still(tmp_path: Path) -> None:
    unread, stderr = os.pipe()
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, LOUD, str(tmp_path), "written"),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    os.close(stderr)
    await becomes((tmp_path / "written").exists)
    parent.send_signal(signal.SIGTERM)
    assert await parent.wait() == 0
    os.close(unread)

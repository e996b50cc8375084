"""Keeps one worker process running for each device, and reports those that end by themselves.

A device's environment is set before its process starts, since torch reads it once. The processes
end with the supervisor. Nothing here imports torch or OpenCV.
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from worker.hardware.devices import Device, discover
from worker.membership import report_exit
from worker.process import hot_restart
from worker.process.child_process import WorkerProcess
from worker.process.exit_report import exit_report
from worker.process.exit_status import tells_of_device
from worker.process.restart_policy import STARTS, STEADY_S, Restart, after_exit
from worker.settings import Settings
from yolopool.errors import InvalidOption
from yolopool.server import parent_death
from yolopool.server.log_writer import LogOutput, QueuedLog
from yolopool.server.process import announce
from yolopool.server.time_limits import ends_within

log = structlog.get_logger()

# How often the supervisor looks for a note that asks for a successor, and how long a successor may
# take to load the models in it.
LOOK_S = 0.5
SUCCESSOR_S = 180.0
# How a drained process ends.
DRAINED = "exit code 0"
# The time that a child may take to close after its drain.
CLOSING_S = 1.0


def print_started(device: Device, pid: int) -> None:
    """Prints one JSON line on stdout, for whoever started the supervisor."""
    announce({"event": "worker", "device": device.id, "pid": pid})


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """A process that ended by itself: how, its last output, the requests in flight, and when it is
    restarted. `incarnation` is empty if it ended before it had one.
    """

    device: Device
    ended: str
    last_output: str
    incarnation: str
    requests: tuple[str, ...]
    ran_s: float
    restart: Restart


async def report_to_nobody(exit: ProcessExit) -> None:
    """The report of a supervisor that only logs."""


class Supervisor:
    """Keeps `command(device)` running for each device.

    Children inherit `environ`, overridden by what their device needs. A child has `drain_grace_s`
    and a second to end after SIGTERM. `started` is called for each process. `report` is called for
    each one that ended by itself, and nobody waits for it. `restart_note` is the path at which a
    device's process asks for a successor. `output` takes the stderr of the processes, and never
    blocks.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        command: Callable[[Device], Sequence[str]],
        *,
        environ: Mapping[str, str],
        drain_grace_s: float,
        started: Callable[[Device, int], None] = print_started,
        clock: Callable[[], float],
        report: Callable[[ProcessExit], Awaitable[None]] = report_to_nobody,
        restart_note: Callable[[Device], Path | None] = lambda device: None,
        output: Callable[[bytes], object] | None = None,
    ) -> None:
        self._devices = tuple(devices)
        self.command = command
        self._environ = environ
        self._end_limit_s = drain_grace_s + CLOSING_S
        self._started = started
        self._report = report
        self._restart_note = restart_note
        self._output = output if output is not None else QueuedLog(LogOutput()).pass_on
        self._reporting: set[asyncio.Future[None]] = set()
        # By device: why it is of no use, of which its processes told STARTS times in a row.
        self._lost: dict[str, str] = {}
        # By device: when its process was started last.
        self._began: dict[str, float] = {}
        self._all_lost = asyncio.Event()
        self._clock = clock

    async def run(self, stop: Callable[[], Awaitable[object]]) -> str:
        """Supervises until `stop()` returns, then ends all children, and returns an empty text; or
        until all devices are lost, and returns why.
        """
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(device)) for device in self._devices]
            stopped = group.create_task(_result(stop()))
            lost = group.create_task(self._all_lost.wait())
            await asyncio.wait((stopped, lost), return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping", why=str(stopped.result()) if stopped.done() else "no device left")
            for task in (*keepers, stopped, lost):
                task.cancel()
        return "" if stopped.done() and not stopped.cancelled() else "; ".join(self._lost.values())

    async def _keep(self, device: Device) -> None:
        attempt = useless = 0
        note = self._restart_note(device)
        if note is not None:
            hot_restart.clear(note)  # left by an earlier run
        child: WorkerProcess | None = None
        while True:
            began = self._began[device.id] = self._clock()
            last, child = await self._run_once(device, child)
            if child is not None:
                attempt = useless = 0
                continue
            made_room = isinstance(last, WorkerProcess) and last.ended == DRAINED
            if note is not None and hot_restart.exists(note) and made_room:
                log.info("worker process made room for its successor", device=device.id)
                attempt = useless = 0
                continue
            if note is not None:
                hot_restart.clear(note)  # no successor took it
            ran_s = self._clock() - began
            restart = after_exit(attempt, ran_s)
            attempt = restart.attempt
            self._note_exit(device, last, ran_s, restart)
            served = ran_s >= STEADY_S and isinstance(last, WorkerProcess) and last.in_flight[0]
            useless = (0 if served else useless) + 1 if _tells_of_device(last) else 0
            self._note_loss(device, useless, last)
            await asyncio.sleep(restart.delay_s)

    def _note_loss(self, device: Device, useless: int, last: "WorkerProcess | OSError") -> None:
        """Notes a device whose processes can't use it. One that comes back is not lost: its last
        process runs on.
        """
        if useless < STARTS:
            self._lost.pop(device.id, None)
            return
        self._lost[device.id] = f"{device.id}: {STARTS} starts in a row failed, {_ended(last)}"
        log.error("a device is lost", device=device.id, starts=useless)
        now = self._clock()
        for other in self._lost.keys() - {device.id}:
            if now - self._began[other] >= STEADY_S:
                del self._lost[other]
        if len(self._lost) == len(self._devices):
            self._all_lost.set()

    def _note_exit(
        self, device: Device, last: "WorkerProcess | OSError", ran_s: float, restart: Restart
    ) -> None:
        """Logs an exit, and reports it unless the process was drained."""
        incarnation, output = "", ""
        requests: tuple[str, ...] = ()
        ended = _ended(last)
        if isinstance(last, WorkerProcess):
            output = last.last_output
            incarnation, requests = last.in_flight
        # It was not this supervisor that ended it, so a control plane drained it for a fresh one.
        drained = ended == DRAINED
        (log.info if drained else log.error)(
            "worker process ended, restarting it",
            device=device.id,
            ended=ended,
            in_flight=len(requests),
            ran_s=round(ran_s, 3),
            restart_in_s=restart.delay_s,
        )
        if not drained:
            exit = ProcessExit(device, ended, output, incarnation, requests, ran_s, restart)
            reporting = asyncio.ensure_future(self._report(exit))
            self._reporting.add(reporting)
            reporting.add_done_callback(self._reporting.discard)

    async def _run_once(
        self, device: Device, child: WorkerProcess | None
    ) -> "tuple[WorkerProcess | OSError, WorkerProcess | None]":
        """Runs `child`, or a new process, to its end.

        Returns the process, or the error with which none could be started, and the successor that
        replaced it, if any. If the call is cancelled, the process is ended first.
        """
        try:
            child = child or await self._start(device)
        except OSError as error:  # out of memory or process ids: it may pass
            return error, None
        successor: WorkerProcess | None = None
        try:
            successor = await self._ended_or_replaced(device, child)
            if successor is not None:
                await self._end(device, child)
            return child, successor
        except asyncio.CancelledError:
            if successor is not None:
                await self._end(device, successor)
            raise
        finally:
            if child.returncode is None:
                await self._end(device, child)
            else:
                await child.wait()  # reads its flight record and its last output

    async def _start(self, device: Device) -> WorkerProcess:
        environ = {**parent_death.environment(self._environ), **device.environment}
        child = await WorkerProcess.start(self.command(device), environ, self._output)
        self._started(device, child.pid)
        return child

    async def _ended_or_replaced(
        self, device: Device, child: WorkerProcess
    ) -> WorkerProcess | None:
        """Waits for a process to end, and returns None; or, if it asks for a successor beside it,
        until the successor has loaded its models, and returns the successor.
        """
        note = self._restart_note(device)
        end = asyncio.create_task(child.wait())
        try:
            while note is not None and not end.done():
                await asyncio.wait((end,), timeout=LOOK_S)
                wish = hot_restart.read(note)
                if wish is not None and wish.beside and not end.done():
                    successor = await self._start_successor(device, note, end)
                    if successor is not None:
                        return successor
            await end
            return None
        finally:
            end.cancel()

    async def _start_successor(
        self, device: Device, note: Path, end: "asyncio.Task[int]"
    ) -> WorkerProcess | None:
        """Starts a successor and waits until it has removed the note; None if it fails."""
        log.info("starting a successor beside the worker process", device=device.id)
        try:
            successor = await self._start(device)
        except OSError as error:
            log.error("no successor could be started", device=device.id, why=str(error))
            hot_restart.clear(note)
            return None
        failed = asyncio.create_task(successor.wait())
        try:
            async with asyncio.timeout(SUCCESSOR_S):
                while hot_restart.exists(note) and not failed.done():
                    await asyncio.wait((failed,), timeout=LOOK_S)
            if not failed.done():
                return successor
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            await self._end(device, successor)
            raise
        finally:
            failed.cancel()
        log.error("the successor failed: the worker goes on serving", device=device.id)
        if successor.returncode is None:
            await self._end(device, successor)
        hot_restart.clear(note)
        return None

    async def _end(self, device: Device, child: WorkerProcess) -> None:
        child.terminate()
        if not await ends_within(child.wait(), self._end_limit_s):
            log.error("worker process did not end in time, killing it", device=device.id)
            child.kill()
            await child.wait()
        log.info("worker process ended", device=device.id, ended=child.ended)


async def _result(of: Awaitable[object]) -> object:
    return await of


def _ended(last: "WorkerProcess | OSError") -> str:
    return last.ended if isinstance(last, WorkerProcess) else f"not started: {last}"


def _tells_of_device(last: "WorkerProcess | OSError") -> bool:
    return isinstance(last, WorkerProcess) and tells_of_device(last.returncode, last.in_flight[1])


def worker_command(settings: Settings, device: Device, worker_id: str) -> list[str]:
    """The command of a device's process: the supervisor's settings, with the device's own."""
    flags = settings.arguments(
        device=device.id,
        id=worker_id,
        black_box=None,
        log_file="",
        join_token_file=None,
        die_with_parent=True,
        handover=restart_note_of(settings, device),
    )
    return [sys.executable, "-m", "worker", *flags]


async def report_to_control_planes(settings: Settings, worker_id: str, exit: ProcessExit) -> None:
    """Reports an exit to all control planes. Does not wait for those that do not answer, and never
    raises.
    """
    report = exit_report(
        worker=worker_id,
        device=exit.device.id,
        device_kind=exit.device.kind,
        incarnation=exit.incarnation,
        ended=exit.ended,
        ran_s=exit.ran_s,
        restart=exit.restart,
        requests=exit.requests,
        last_output=exit.last_output,
    )
    key = settings.api_key.get_secret_value()
    await report_exit(settings.control_planes, report, key, settings.certificates())


async def report_no_device(settings: Settings, why: str) -> None:
    """Reports to all control planes that the supervisor ends, since no device can be used."""
    device = Device("cuda", settings.devices, "", 0)
    exit = ProcessExit(device, f"no device: {why}", "", "", (), 0.0, after_exit(0, 0.0))
    await report_to_control_planes(settings, settings.id_of(device.id, alone=True), exit)


def restart_note_of(settings: Settings, device: Device) -> Path:
    """Where the process of a device asks for a successor. No other supervisor uses this path."""
    name = f"{os.getpid()}-{re.sub(r'[^A-Za-z0-9-]', '-', device.id)}.json"
    return settings.data_dir / "handover" / name


def supervisor_of(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Callable[[], float],
    output: Callable[[bytes], object] | None = None,
) -> Supervisor:
    """A supervisor with one worker for each of `settings.devices`, not yet running.

    Raises InvalidOption for a device that does not exist, and for a port or an address that
    several processes would have to share; BrokenGpu, see `discover`.
    """
    devices = discover(settings.devices, environ, compute_threads=settings.compute_threads)
    if not devices:
        raise InvalidOption(f"--devices {settings.devices} names no device: give at least one")
    alone = len(devices) == 1
    if not alone and (settings.port or settings.advertise):
        raise InvalidOption(
            f"--port and --advertise are for one worker, and there are {len(devices)} devices: "
            "leave them out, or start one worker for each device with --device"
        )
    # Once: whatever becomes of the certificate, a device's worker keeps its id.
    ids = {device.id: settings.id_of(device.id, alone) for device in devices}
    log.info("supervising", devices=[device.id for device in devices])
    return Supervisor(
        devices,
        lambda device: worker_command(settings, device, ids[device.id]),
        environ={**environ, **settings.secrets()},
        drain_grace_s=settings.drain_grace_s,
        clock=clock,
        restart_note=partial(restart_note_of, settings),
        report=lambda exit: report_to_control_planes(settings, ids[exit.device.id], exit),
        output=output,
    )

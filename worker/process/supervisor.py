"""One worker process a device: started, bound to its device, restarted when it dies, ended with us.

The environment a device needs is set before its process begins, since torch reads it once. Light:
nothing here imports torch or OpenCV. The control planes are told of a process that ended by itself.
"""

import asyncio
import json
import os
import re
import socket
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
from worker.process.restart_policy import Restart, after_exit
from worker.process.stderr_writer import NonBlockingStderr
from worker.settings import Settings
from yolopool.errors import InvalidOption
from yolopool.server import parent_death

log = structlog.get_logger()

# How often a process is looked at for the note by which it asks for a successor, and how long that
# one may take to load what it is handed.
LOOK_S = 0.5
SUCCESSOR_S = 180.0
# How a process ends that was drained.
DRAINED = "exit code 0"
# Beyond its own drain, for a child to close what it has open.
CLOSING_S = 1.0


def print_started(device: Device, pid: int) -> None:
    """One JSON line on stdout, for whoever started us."""
    sys.stdout.write(json.dumps({"event": "worker", "device": device.id, "pid": pid}) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """A process that ended by itself: how, what it wrote last, what it had in hand, and what comes
    next. `incarnation` is empty if it ended before it had one.
    """

    device: Device
    ended: str
    last_output: str
    incarnation: str
    requests: tuple[str, ...]
    ran_s: float
    restart: Restart


async def report_to_nobody(exit: ProcessExit) -> None:
    """For a supervisor whose log is enough."""


class Supervisor:
    """Keeps `command(device)` running for each device.

    `environ` is what children inherit, below what their device needs; a child has
    `drain_grace_s` (and a second) to end after SIGTERM. `started` is told of each process; `note`
    says where the process of a device leaves word that it wants a successor; `tell` passes on how
    one ended by itself, and is not waited for; `output` takes what processes write on stderr, and
    never blocks.
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
        self._command = command
        self._environ = environ
        self._patience_s = drain_grace_s + CLOSING_S
        self._started = started
        self._report = report
        self._restart_note = restart_note
        self._output = output if output is not None else NonBlockingStderr().pass_on
        self._reporting: set[asyncio.Future[None]] = set()
        self._clock = clock

    async def run(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Supervises until what `stop` returns is done; returns when no child is left."""
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(device)) for device in self._devices]
            log.info("stopping", why=str(await stop()))
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, device: Device) -> None:
        attempt = 0
        note = self._restart_note(device)
        if note is not None:
            hot_restart.clear(note)  # of another run of ours
        child: WorkerProcess | None = None
        while True:
            began = self._clock()
            last, child = await self._run_once(device, child)
            if child is not None:
                attempt = 0
                continue
            made_room = isinstance(last, WorkerProcess) and last.ended == DRAINED
            if note is not None and hot_restart.there(note) and made_room:
                log.info("worker process made room for its successor", device=device.id)
                attempt = 0
                continue
            if note is not None:
                hot_restart.clear(note)  # whoever was to take over did not come to it
            ran_s = self._clock() - began
            restart = after_exit(attempt, ran_s)
            attempt = restart.attempt
            self._note_exit(device, last, ran_s, restart)
            await asyncio.sleep(restart.delay_s)

    def _note_exit(
        self, device: Device, last: "WorkerProcess | OSError", ran_s: float, restart: Restart
    ) -> None:
        """To the log, and to the control planes unless nothing is wrong with it."""
        incarnation, output = "", ""
        requests: tuple[str, ...] = ()
        if isinstance(last, WorkerProcess):
            ended, output = last.ended, last.last_output
            incarnation, requests = last.in_flight
        else:
            ended = f"not started: {last}"
        # Nobody told us to stop: a control plane drained it, for a fresh one.
        drained = ended == DRAINED
        (log.info if drained else log.error)(
            "worker process ended, starting it again",
            device=device.id,
            ended=ended,
            in_hand=len(requests),
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
        """Runs one process (a given one, or a new one) to its end and answers it, or why there was
        none, with the successor that took its place, if any. A cancelled call ends it first.
        """
        try:
            child = child or await self._start(device)
        except OSError as error:  # no memory or process number left: it may pass
            return error, None
        successor: WorkerProcess | None = None
        try:
            successor = await self._ended_or_followed(device, child)
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
                await child.wait()  # for what it left

    async def _start(self, device: Device) -> WorkerProcess:
        environ = {**parent_death.environment(self._environ), **device.environment}
        child = await WorkerProcess.start(self._command(device), environ, self._output)
        self._started(device, child.pid)
        return child

    async def _ended_or_followed(
        self, device: Device, child: WorkerProcess
    ) -> WorkerProcess | None:
        """Waits for the end of a process; or, if it asks for a successor beside it, until that
        one has what it was handed, and answers it.
        """
        note = self._restart_note(device)
        end = asyncio.create_task(child.wait())
        try:
            while note is not None and not end.done():
                await asyncio.wait((end,), timeout=LOOK_S)
                left = hot_restart.read(note)
                if left is not None and left.beside and not end.done():
                    successor = await self._follow(device, note, end)
                    if successor is not None:
                        return successor
            await end
            return None
        finally:
            end.cancel()

    async def _follow(
        self, device: Device, note: Path, end: "asyncio.Task[int]"
    ) -> WorkerProcess | None:
        """Starts a successor and waits until it has read and removed the note."""
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
                while hot_restart.there(note) and not failed.done():
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
        log.error("the successor did not come up: the worker serves on", device=device.id)
        if successor.returncode is None:
            await self._end(device, successor)
        hot_restart.clear(note)
        return None

    async def _end(self, device: Device, child: WorkerProcess) -> None:
        child.terminate()
        try:
            async with asyncio.timeout(self._patience_s):
                await child.wait()
        except TimeoutError:
            log.error("worker process did not end in time, killing it", device=device.id)
            child.kill()
            await child.wait()
        log.info("worker process ended", device=device.id, ended=child.ended)


def worker_command(settings: Settings, device: Device, alone: bool) -> list[str]:
    """The command of a device's process: all our settings, with those that are its own."""
    flags = settings.arguments(
        device=device.id,
        id=worker_id(settings, device, alone),
        black_box=None,
        die_with_parent=True,
        handover=restart_note_of(settings, device),
    )
    return [sys.executable, "-m", "worker", *flags]


def worker_id(settings: Settings, device: Device, alone: bool) -> str:
    """The name by which control planes know the worker of a device."""
    given = settings.id if alone or not settings.id else f"{settings.id}-{slug(device)}"
    return given or f"{socket.gethostname()}-{slug(device)}"


def slug(device: Device) -> str:
    return device.id.replace(":", "-")


async def report_to_control_planes(settings: Settings, alone: bool, exit: ProcessExit) -> None:
    """Waits for none that does not answer; never raises."""
    report = exit_report(
        worker=worker_id(settings, exit.device, alone),
        device=exit.device.id,
        device_kind=exit.device.kind,
        incarnation=exit.incarnation,
        ended=exit.ended,
        ran_s=exit.ran_s,
        restart=exit.restart,
        requests=exit.requests,
        last_output=exit.last_output,
    )
    await report_exit(settings.control_planes, report)


def restart_note_of(settings: Settings, device: Device) -> Path:
    """Where the process of a device leaves word for its successor; of this supervisor alone."""
    name = f"{os.getpid()}-{re.sub(r'[^A-Za-z0-9-]', '-', device.id)}.json"
    return settings.data_dir / "handover" / name


def supervisor_of(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Callable[[], float],
    output: Callable[[bytes], object] | None = None,
) -> Supervisor:
    """A supervisor of one worker a device of `settings.devices`, not yet running.

    Raises InvalidOption for a device that is not there, and for a port or an address that
    several processes would have to share.
    """
    devices = discover(settings.devices, environ, compute_threads=settings.compute_threads)
    if not devices:
        raise InvalidOption(f"--devices {settings.devices} names no device: ask for one at least")
    alone = len(devices) == 1
    if not alone and (settings.port or settings.advertise):
        raise InvalidOption(
            f"--port and --advertise are of one worker and there are {len(devices)} devices: "
            "leave them out, or start one worker a device with --device"
        )
    log.info("supervising", devices=[device.id for device in devices])
    return Supervisor(
        devices,
        lambda device: worker_command(settings, device, alone),
        environ=environ,
        drain_grace_s=settings.drain_grace_s,
        clock=clock,
        restart_note=partial(restart_note_of, settings),
        report=partial(report_to_control_planes, settings, alone),
        output=output,
    )

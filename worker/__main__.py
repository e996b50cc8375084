"""`python -m worker`: with `--device` a worker process, without it the supervisor of several."""

import asyncio
import faulthandler
import os
import sys
import threading
import time

import structlog

from worker.hardware.devices import BrokenGpu, DeviceNotTaken
from worker.process.confinement import confine
from worker.process.exit_status import DEVICES_LOST, NOT_TAKEN
from worker.process.supervisor import report_no_device, supervisor_of
from worker.process.watchdog import WORKING
from worker.settings import Settings, read_settings
from yolopool.errors import YolopoolError
from yolopool.server import logs, process
from yolopool.server.log_writer import DirectLog, QueuedLog
from yolopool.server.parent_death import die_with_parent
from yolopool.tls.joining import membership

log = structlog.get_logger()


def main() -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status."""
    process.begin()
    settings = read_settings()
    # After a crash in native code, the dumped stacks say where it happened.
    faulthandler.enable()
    # A worker's own last lines tell why it ended: they are written at once. Its supervisor, which
    # reads them, waits for no reader.
    stream = logs.set_up_logs(
        "worker",
        settings.log_level,
        settings.log_json,
        file=settings.log_file,
        queued=not settings.device,
    )
    if settings.die_with_parent:
        die_with_parent()
    try:
        # Of a device's process: its supervisor starts programs and looks at the whole host.
        sandbox = confine(settings) if settings.device else ""
        asyncio.run(_run(settings, stream, sandbox))
    except DeviceNotTaken as error:
        log.error("worker can't run", why=str(error))
        return leave(NOT_TAKEN)
    except BrokenGpu as error:
        log.error("no worker can run", why=str(error))
        return leave(DEVICES_LOST)
    except (YolopoolError, OSError) as error:
        log.error("worker can't run", why=str(error))
        return leave(1)
    return leave(0)


def leave(status: int) -> int:
    """Returns the exit status; ends the process with it at once where a load or a pass is left that
    did not end: if it came back while the interpreter ends, it would abort the process.
    """
    if any(thread.name in WORKING for thread in threading.enumerate()):
        os._exit(status)
    return status


async def _run(settings: Settings, stream: QueuedLog | DirectLog, sandbox: str) -> None:
    joining = settings.joining()
    if joining is None:
        await _serve(settings, stream, sandbox)
        return
    async with membership(joining, settings.control_planes, time.time) as files:
        await _serve(settings.with_files(files), stream, sandbox)


async def _serve(settings: Settings, stream: QueuedLog | DirectLog, sandbox: str) -> None:
    if isinstance(stream, QueuedLog):
        try:
            supervisor = supervisor_of(settings, os.environ, time.monotonic, stream.pass_on)
        except BrokenGpu as error:
            await report_no_device(settings, str(error))
            raise
        process.settle()
        if why := await supervisor.run(process.until_signal):
            await report_no_device(settings, why)
            raise BrokenGpu(why)
        return
    # Imported here to keep the supervisor light: it imports OpenCV.
    from worker.app import serve

    await serve(settings, process.until_signal, sandbox)


if __name__ == "__main__":
    sys.exit(main())

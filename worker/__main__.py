"""`python -m worker`: with `--device` a worker process, without it the supervisor of several."""

import asyncio
import faulthandler
import os
import sys
import time

import structlog

from worker.hardware.devices import BrokenGpu
from worker.process.stderr_writer import NonBlockingStderr
from worker.process.supervisor import report_no_device, supervisor_of
from worker.settings import Settings, read_settings
from yolopool.errors import YolopoolError
from yolopool.server import logs, process
from yolopool.server.parent_death import die_with_parent

log = structlog.get_logger()
LOG_DRAIN_S = 1.0


def main() -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status."""
    settings = read_settings()
    # After a crash in native code, the dumped stacks say where it happened.
    faulthandler.enable()
    # The reader of a supervisor's log must not block it. A worker's log is read by its supervisor,
    # and a worker has a watchdog.
    stderr = NonBlockingStderr() if not settings.device else None
    logs.set_up_logs("worker", settings.log_level, settings.log_json, stderr)
    if settings.die_with_parent:
        die_with_parent()
    try:
        asyncio.run(_run(settings, stderr))
    except (YolopoolError, OSError) as error:
        log.error("worker can't run", why=str(error))
        return 1
    finally:
        if stderr is not None:
            stderr.drain(LOG_DRAIN_S)
    return 0


async def _run(settings: Settings, stderr: NonBlockingStderr | None) -> None:
    if stderr is not None:
        try:
            supervisor = supervisor_of(settings, os.environ, time.monotonic, stderr.pass_on)
        except BrokenGpu as error:
            await report_no_device(settings, str(error))
            raise
        await supervisor.run(process.until_signal)
        return
    # Imported here to keep the supervisor light: it imports OpenCV.
    from worker.app import serve

    await serve(settings, process.until_signal)


if __name__ == "__main__":
    sys.exit(main())

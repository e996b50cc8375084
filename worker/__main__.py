"""`python -m worker`: one process for `--device`, else the supervisor of one process a device."""

import asyncio
import faulthandler
import os
import sys
import time

import structlog

from worker.process.stderr_writer import NonBlockingStderr
from worker.process.supervisor import supervisor_of
from worker.settings import Settings, read_settings
from yolopool.errors import YolopoolError
from yolopool.server import logs, process
from yolopool.server.parent_death import die_with_parent

log = structlog.get_logger()
LAST_WORDS_S = 1.0


def main() -> int:
    """Runs until SIGTERM or SIGINT; answers the exit status."""
    settings = read_settings()
    # Where a crash in native code happened is the last that such a process says.
    faulthandler.enable()
    # A supervisor is not to be held up by whoever reads its log; a worker's goes to its supervisor,
    # and has a watchdog.
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
            stderr.drain(LAST_WORDS_S)
    return 0


async def _run(settings: Settings, stderr: NonBlockingStderr | None) -> None:
    if stderr is not None:
        supervisor = supervisor_of(settings, os.environ, time.monotonic, stderr.pass_on)
        await supervisor.run(process.until_signal)
        return
    # Not for the supervisor, which stays light: this imports OpenCV.
    from worker.app import serve

    await serve(settings, process.until_signal)


if __name__ == "__main__":
    sys.exit(main())

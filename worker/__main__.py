"""`python -m worker`: one process for `--device`, else the supervisor of one process a device."""

import asyncio
import faulthandler
import os
import sys

import structlog

from worker.settings import Settings, read_settings
from worker.supervisor import supervisor_of
from yolopool import serving
from yolopool.errors import YolopoolError

log = structlog.get_logger()


def main() -> int:
    """Runs until SIGTERM or SIGINT; answers the exit status."""
    settings = read_settings()
    # Where a crash in native code happened is the last that such a process says.
    faulthandler.enable()
    serving.set_up_logs("worker", settings.log_level, settings.log_json)
    if settings.die_with_parent:
        serving.die_with_parent()
    try:
        asyncio.run(_run(settings))
    except (YolopoolError, OSError) as error:
        log.error("worker can't run", why=str(error))
        return 1
    return 0


async def _run(settings: Settings) -> None:
    if not settings.device:
        await supervisor_of(settings, os.environ).run(serving.until_signal)
        return
    # Not for the supervisor, which stays light: this imports OpenCV.
    from worker.app import serve

    await serve(settings, serving.until_signal)


if __name__ == "__main__":
    sys.exit(main())

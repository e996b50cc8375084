"""Sets up structured logs: one JSON object a line on stderr."""

import contextlib
import io
import logging
import sys
from typing import Any, TextIO, cast

import structlog


class _Stderr(io.TextIOBase):
    """stderr, ignoring a reader that was killed, so that a process can log while it stops."""

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()


def set_up_logs(
    process: str, level: str = "INFO", json: bool = True, stream: io.TextIOBase | None = None
) -> None:
    """Sends structured logs to a stream (default: stderr), as JSON or as lines for a terminal."""
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", stream or _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)

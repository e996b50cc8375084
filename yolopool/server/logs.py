"""Sets up structured logs: one JSON object a line on stderr, or in a file."""

import atexit
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

from yolopool.masking import masked
from yolopool.server.log_writer import DirectLog, LogFile, LogOutput, QueuedLog, RotatedFile

DRAIN_S = 1.0
_streams: list[QueuedLog | DirectLog] = []
# That of this process's log, if its lines are JSON.
_json: list[QueuedLog | DirectLog] = []


def set_up_logs(
    process: str,
    level: str = "INFO",
    json: bool = True,
    *,
    file: str = "",
    queued: bool = True,
) -> QueuedLog | DirectLog:
    """Sends structured logs to stderr as JSON, or as lines for a terminal; returns their stream.

    `file` becomes stderr and is rotated by its size; if it can't be opened, stderr stays what it
    is, and a warning says so. `queued`: a thread writes, so that no call waits for a reader or a
    disk; the last lines before a crash are then lost.
    """
    output, refused = LogOutput(), ""
    if file:
        try:
            output = LogFile(Path(file).expanduser())
        except OSError as error:
            refused = str(error)
    stream = QueuedLog(output) if queued else DirectLog(output)
    if isinstance(stream, QueuedLog):
        atexit.register(stream.drain, DRAIN_S)
    _streams.append(stream)
    _json[:] = [stream] if json else []
    renderer: Any = structlog.processors.JSONRenderer()
    if not json:
        # The library's own tracebacks have the values of all variables: those are secrets, and
        # callers' data, and take seconds to print.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if json else []),
            renderer,
            _masked,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    if refused:
        structlog.get_logger().warning("the log file can't be opened", file=file, why=refused)
    return stream


def _masked(_: Any, __: str, line: Any) -> str:
    """Callers put keys and tokens where none belong, such as the name of a model."""
    return masked(line)


def json_lines() -> Callable[[bytes], object] | None:
    """Takes whole lines of JSON for this process's log; None: its lines are not JSON."""
    return _json[0].pass_on if _json else None


def lines_to(
    path: Path, max_bytes: int, max_age_s: float, kept: int, now: Callable[[], float]
) -> Callable[[bytes], object]:
    """Takes whole lines for a file of their own: see RotatedFile. Never blocks. Raises OSError if
    the file can't be opened.
    """
    stream = QueuedLog(RotatedFile(path, max_bytes, max_age_s, kept, now))
    atexit.register(stream.drain, DRAIN_S)
    _streams.append(stream)
    return stream.pass_on


def write_out() -> None:
    """Returns when all lines of this process's log are written, or after a while."""
    for stream in _streams:
        if isinstance(stream, QueuedLog):
            stream.drain(DRAIN_S)


def dropped_lines() -> int:
    """How many lines of this process's log could not be written."""
    return sum(stream.dropped_lines for stream in _streams)

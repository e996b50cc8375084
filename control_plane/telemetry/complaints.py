"""What the library of OpenTelemetry complains of, in this process's log.

It says so of each attempt: while a collector is away that is a line every few seconds.
"""

import contextvars
import logging

import structlog

log = structlog.get_logger()

EVERY_S = 300.0
MAX_CHARS = 300


class Complaints(logging.Handler):
    """At most one line every EVERY_S; `install` it once a process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        # Complaints come from threads of the library, which have no context of the log.
        self._context = contextvars.copy_context()
        self._until_s = 0.0

    def install(self) -> None:
        """In place of what was installed before."""
        library = logging.getLogger("opentelemetry")
        library.handlers, library.propagate = [self], False

    def emit(self, record: logging.LogRecord) -> None:
        if record.created < self._until_s:
            return
        self._until_s = record.created + EVERY_S
        why = record.getMessage()[:MAX_CHARS]
        self._context.copy().run(log.warning, "the collector is not told", why=why)

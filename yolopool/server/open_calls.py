"""What every door of a server process shares: the calls in progress, and the errors callers see."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from yolopool.errors import Draining, Internal, YolopoolError
from yolopool.server import exhaustion

log = structlog.get_logger()


class OpenCalls:
    """Counts the calls in progress, without streams that have no end of their own."""

    def __init__(self) -> None:
        self.open = 0
        self.refusing = False

    @contextmanager
    def one(self, admitted: bool = False) -> Iterator[None]:
        """One call, from begin to end. Raises Draining if the process stops, unless it is part of
        one that was `admitted` before.
        """
        if self.refusing and not admitted:
            raise Draining("this process is stopping: ask another")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


def typed_error(error: Exception, method: str) -> YolopoolError:
    """The error that callers get; of a surprise, only an id to find it by in the log."""
    if isinstance(error, YolopoolError):
        return error
    typed = exhaustion.typed(error)
    if typed is not None:
        log.warning("out of room", method=method, reason=typed.reason, why=str(error))
        return typed
    incident = uuid.uuid4().hex[:12]
    log.error("unexpected error", method=method, incident=incident, exc_info=error)
    return Internal(
        f"internal error {incident}: search for this id in the server's log",
        details={"incident": incident},
    )

"""The base of all errors, and one class a gRPC code. `errors` has the reasons below them.

Standard library only, so that pure packages can raise these.
"""

from collections.abc import Mapping


class YolopoolError(Exception):
    """Base of all errors of yolopool.

    `code` is the name of the gRPC status code, `reason` a stable machine code, `retryable`
    whether the same call may succeed later, `retry_after_s` how long to wait first (seconds,
    None: unknown), `details` further facts as strings.
    """

    code = "INTERNAL"
    reason = "INTERNAL"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = dict(details or {})

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


# --- One class a gRPC code -------------------------------------------------------------------


class InvalidArgument(YolopoolError):
    """The request is wrong; change it before trying again."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"


class NotFound(YolopoolError):
    """What the request names does not exist."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class FailedPrecondition(YolopoolError):
    """The request is valid, but not possible in this state."""

    code = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class ResourceExhausted(YolopoolError):
    """No room at the moment: queue, memory or disk."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"
    retryable = True


class Unavailable(YolopoolError):
    """A part of the pool does not answer at the moment."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(YolopoolError):
    """The deadline of the call passed."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class DataLoss(YolopoolError):
    """Stored or sent bytes are damaged."""

    code = "DATA_LOSS"
    reason = "DATA_LOSS"


class Cancelled(YolopoolError):
    """The caller cancelled the call."""

    code = "CANCELLED"
    reason = "CANCELLED"


class Unauthenticated(YolopoolError):
    """The caller is not known."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(YolopoolError):
    """The caller is known, but has no permission."""

    code = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class Unimplemented(YolopoolError):
    """A part of a protocol that this pool does not serve."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"


class Internal(YolopoolError):
    """A fault of the server; the message has an id to search for in its log."""

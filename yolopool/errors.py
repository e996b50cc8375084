"""The one error tree of the product: every refusal has a reason code and says what to do.

The middle classes carry the gRPC code, the leaves the UPPER_SNAKE reason; `status` maps both to
and from the wire. Only the standard library is used here, so that pure rooms may raise these.
"""

from collections.abc import Iterator, Mapping


class YolopoolError(Exception):
    """Base of all errors of yolopool.

    `code` is the name of the gRPC status code, `reason` a stable machine code, `retryable`
    whether the same call may succeed later, `retry_after_s` how long to wait first (seconds,
    None: not said), `details` further facts as strings.
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
    """The request is wrong and stays wrong: change it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"


class NotFound(YolopoolError):
    """What the request names does not exist."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class FailedPrecondition(YolopoolError):
    """The request is right, but not in this state."""

    code = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class ResourceExhausted(YolopoolError):
    """No room now: queue, memory or disk."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"
    retryable = True


class Unavailable(YolopoolError):
    """A part of the pool does not answer now."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(YolopoolError):
    """The caller's time ran out."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class DataLoss(YolopoolError):
    """Bytes are not what they should be."""

    code = "DATA_LOSS"
    reason = "DATA_LOSS"


class Cancelled(YolopoolError):
    """The caller went away."""

    code = "CANCELLED"
    reason = "CANCELLED"


class Unauthenticated(YolopoolError):
    """Nobody known is calling."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(YolopoolError):
    """The caller is known and may not."""

    code = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class Internal(YolopoolError):
    """A fault of ours; the message holds an id to look for in the logs."""


# --- INVALID_ARGUMENT ------------------------------------------------------------------------


class InvalidModelName(InvalidArgument):
    reason = "INVALID_MODEL_NAME"


class InvalidModelReference(InvalidArgument):
    reason = "INVALID_MODEL_REFERENCE"


class InvalidOption(InvalidArgument):
    reason = "INVALID_OPTION"


class InvalidDigest(InvalidArgument):
    reason = "INVALID_DIGEST"


class InvalidOffset(InvalidArgument):
    reason = "INVALID_OFFSET"


class InvalidWorker(InvalidArgument):
    reason = "INVALID_WORKER"


class ImageEmpty(InvalidArgument):
    reason = "IMAGE_EMPTY"


class ImageNotDecodable(InvalidArgument):
    reason = "IMAGE_NOT_DECODABLE"


class ImageTooLarge(InvalidArgument):
    reason = "IMAGE_TOO_LARGE"


class ImageShapeMismatch(InvalidArgument):
    reason = "IMAGE_SHAPE_MISMATCH"


class ImageQuarantined(InvalidArgument):
    """It ended two workers: refused by its version for a while, `retry_after_s` from now."""

    reason = "IMAGE_QUARANTINED"


class InvalidSchedule(InvalidArgument):
    reason = "INVALID_SCHEDULE"


class PackInvalid(InvalidArgument):
    reason = "PACK_INVALID"


# --- NOT_FOUND -------------------------------------------------------------------------------


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    reason = "VERSION_NOT_FOUND"


class AliasNotFound(NotFound):
    reason = "ALIAS_NOT_FOUND"


class ArtifactNotFound(NotFound):
    reason = "ARTIFACT_NOT_FOUND"


class PackNotFound(NotFound):
    reason = "PACK_NOT_FOUND"


class WorkerNotFound(NotFound):
    reason = "WORKER_NOT_FOUND"


class ScheduleNotFound(NotFound):
    reason = "SCHEDULE_NOT_FOUND"


class RequestNotFound(NotFound):
    reason = "REQUEST_NOT_FOUND"


class NotAssigned(NotFound):
    """This worker does not hold the version; another may."""

    reason = "NOT_ASSIGNED"
    retryable = True


# --- FAILED_PRECONDITION ---------------------------------------------------------------------


class ModelImportFailed(FailedPrecondition):
    reason = "MODEL_IMPORT_FAILED"


class ModelNotReady(FailedPrecondition):
    """Still importing."""

    reason = "MODEL_NOT_READY"
    retryable = True


class ModelTooLarge(FailedPrecondition):
    """Fits no worker of the fleet, even an empty one."""

    reason = "MODEL_TOO_LARGE"


class VersionQuarantined(FailedPrecondition):
    """It ended its workers, whatever the image: refused for a while, `retry_after_s` from now."""

    reason = "VERSION_QUARANTINED"


class StaleToken(FailedPrecondition):
    reason = "STALE_TOKEN"


class ImportNotYours(FailedPrecondition):
    reason = "IMPORT_NOT_YOURS"


class ChangeoverFailed(FailedPrecondition):
    """One of the models to prepare can't be loaded; nothing was changed."""

    reason = "CHANGEOVER_FAILED"


# --- RESOURCE_EXHAUSTED ----------------------------------------------------------------------


class QueueFull(ResourceExhausted):
    reason = "QUEUE_FULL"


class LedgerFull(ResourceExhausted):
    reason = "LEDGER_FULL"


class OutOfMemory(ResourceExhausted):
    reason = "OUT_OF_MEMORY"


class ArtifactTooLarge(ResourceExhausted):
    reason = "ARTIFACT_TOO_LARGE"
    retryable = False


# --- UNAVAILABLE -----------------------------------------------------------------------------


class NoWorker(Unavailable):
    reason = "NO_WORKER"


class WorkerLost(Unavailable):
    reason = "WORKER_LOST"


class WorkerSilent(Unavailable):
    """It neither answered nor refused in a time that is long for it; another is asked."""

    reason = "WORKER_SILENT"


class Draining(Unavailable):
    reason = "DRAINING"


class DeviceHung(Unavailable):
    """Its device does not come to the end of what it runs; another is asked."""

    reason = "DEVICE_HUNG"


class RegistryUnavailable(Unavailable):
    reason = "REGISTRY_UNAVAILABLE"


# --- DEADLINE_EXCEEDED -----------------------------------------------------------------------


class DeadlineUnmeetable(DeadlineExceeded):
    """Refused, on arrival or when others could be in time in its place: by the worker's estimate
    the answer would come too late. Nothing was run.
    """

    reason = "DEADLINE_UNMEETABLE"


# --- DATA_LOSS, INTERNAL, PERMISSION_DENIED ---------------------------------------------------


class DigestMismatch(DataLoss):
    reason = "DIGEST_MISMATCH"


class LoadFailed(Internal):
    reason = "LOAD_FAILED"


class InferenceFailed(Internal):
    reason = "INFERENCE_FAILED"


def _tree(root: type[YolopoolError]) -> Iterator[type[YolopoolError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


# reason -> class and code -> class. A middle class stands for its code, so an unknown reason
# of a known code (a newer server) still becomes the right kind of error.
BY_REASON: dict[str, type[YolopoolError]] = {cls.reason: cls for cls in _tree(YolopoolError)}
BY_CODE: dict[str, type[YolopoolError]] = {cls.code: cls for cls in YolopoolError.__subclasses__()}


def rebuild(
    code: str,
    reason: str,
    message: str,
    retryable: bool | None = None,
    retry_after_s: float | None = None,
    details: Mapping[str, str] | None = None,
) -> YolopoolError:
    """Makes the error that a server meant, keeping its reason even if this release lacks it."""
    known = BY_REASON.get(reason)
    cls = known if known is not None and known.code == code else BY_CODE.get(code, Internal)
    error = cls(message, retry_after_s=retry_after_s, details=details)
    if reason and error.reason != reason:
        error.reason = reason
    if retryable is not None and error.retryable != retryable:
        error.retryable = retryable
    return error


def rebuild_reason(
    reason: str, message: str, *, retry_after_s: float | None = None
) -> YolopoolError:
    """Makes the error of a known reason; a reason nobody knows becomes Internal and keeps it."""
    cls = BY_REASON.get(reason)
    if cls is not None:
        return cls(message, retry_after_s=retry_after_s)
    return rebuild("INTERNAL", reason, message, retry_after_s=retry_after_s)

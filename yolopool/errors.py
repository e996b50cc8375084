"""The error tree of the product: every error has a reason code and says what to do.

The middle classes carry the gRPC code, their subclasses the UPPER_SNAKE reason; `status` maps both
to and from the wire, and `error_table` finds a class by them. Standard library only, so that pure
packages can raise these.
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


# --- INVALID_ARGUMENT ------------------------------------------------------------------------


class InvalidModelName(InvalidArgument):
    reason = "INVALID_MODEL_NAME"


class InvalidModelReference(InvalidArgument):
    reason = "INVALID_MODEL_REFERENCE"


class InvalidOption(InvalidArgument):
    reason = "INVALID_OPTION"


class VideoNotReadable(InvalidArgument):
    reason = "VIDEO_NOT_READABLE"


class InvalidTensor(InvalidArgument):
    """Of the KServe door: not the tensors that a model takes."""

    reason = "INVALID_TENSOR"


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


class ImageDamaged(ImageNotDecodable):
    """A part of the picture can't be read; the option accept_damaged runs the rest."""

    reason = "IMAGE_DAMAGED"


class ImageTooLarge(InvalidArgument):
    reason = "IMAGE_TOO_LARGE"


class ImageShapeMismatch(InvalidArgument):
    reason = "IMAGE_SHAPE_MISMATCH"


class ImageQuarantined(InvalidArgument):
    """The image crashed two workers; its version refuses it until `retry_after_s` from now."""

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
    """This worker does not have the version; another may."""

    reason = "NOT_ASSIGNED"
    retryable = True


# --- FAILED_PRECONDITION ---------------------------------------------------------------------


class ModelImportFailed(FailedPrecondition):
    reason = "MODEL_IMPORT_FAILED"


class ModelNotReady(FailedPrecondition):
    """The version is still being imported."""

    reason = "MODEL_NOT_READY"
    retryable = True


class ModelTooLarge(FailedPrecondition):
    """The model fits no worker of the fleet, not even an empty one."""

    reason = "MODEL_TOO_LARGE"


class VersionQuarantined(FailedPrecondition):
    """The version crashed workers on several images; refused until `retry_after_s` from now."""

    reason = "VERSION_QUARANTINED"


class StaleToken(FailedPrecondition):
    reason = "STALE_TOKEN"


class ImportNotYours(FailedPrecondition):
    reason = "IMPORT_NOT_YOURS"


class ForkedProcess(FailedPrecondition):
    """This process was forked by one that used gRPC, which can't be used in it."""

    reason = "FORKED_PROCESS"


class ExtraMissing(FailedPrecondition):
    reason = "EXTRA_MISSING"


class ChangeoverFailed(FailedPrecondition):
    """A model to prepare cannot be loaded; nothing was changed."""

    reason = "CHANGEOVER_FAILED"


# --- RESOURCE_EXHAUSTED ----------------------------------------------------------------------


class QueueFull(ResourceExhausted):
    reason = "QUEUE_FULL"


class LedgerFull(ResourceExhausted):
    reason = "LEDGER_FULL"


class OutOfMemory(ResourceExhausted):
    reason = "OUT_OF_MEMORY"


class DiskFull(ResourceExhausted):
    """A disk of the pool is full; `place` in the details is the folder on it."""

    reason = "DISK_FULL"


class OutOfFiles(ResourceExhausted):
    """A process of the pool may open no more files and connections."""

    reason = "OUT_OF_FILES"


class ArtifactTooLarge(ResourceExhausted):
    reason = "ARTIFACT_TOO_LARGE"
    retryable = False


class MessageTooLarge(ResourceExhausted):
    """A request or an answer is above what a connection carries."""

    reason = "MESSAGE_TOO_LARGE"
    retryable = False


# --- UNAVAILABLE -----------------------------------------------------------------------------


class NoWorker(Unavailable):
    reason = "NO_WORKER"


class ModelNotLoaded(Unavailable):
    """No device has the model now; a Detect would wait for a load."""

    reason = "MODEL_NOT_LOADED"


class WorkerLost(Unavailable):
    reason = "WORKER_LOST"


class WorkerSilent(Unavailable):
    """The worker gave no answer within its time limit; the request goes to another."""

    reason = "WORKER_SILENT"


class Draining(Unavailable):
    reason = "DRAINING"


class DeviceHung(Unavailable):
    """The worker's device does not finish what it runs; the request goes to another."""

    reason = "DEVICE_HUNG"


class StorageFailed(Unavailable):
    """A disk of the pool can't be written; `place` in the details is the folder on it."""

    reason = "STORAGE_FAILED"


class RegistryUnavailable(Unavailable):
    reason = "REGISTRY_UNAVAILABLE"


class RegistryRefusesWrites(RegistryUnavailable):
    """The store answers, but takes no writes: it became a replica, or is full."""

    reason = "REGISTRY_REFUSES_WRITES"


# --- DEADLINE_EXCEEDED, DATA_LOSS, INTERNAL, PERMISSION_DENIED ---------------------------------


class DeadlineUnmeetable(DeadlineExceeded):
    """The worker estimates that the answer would be late, and refuses: on arrival, or later."""

    reason = "DEADLINE_UNMEETABLE"


class DigestMismatch(DataLoss):
    reason = "DIGEST_MISMATCH"


class LoadFailed(Internal):
    reason = "LOAD_FAILED"


class InferenceFailed(Internal):
    reason = "INFERENCE_FAILED"

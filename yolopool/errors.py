"""The error tree of the product: every error has a reason code and says what to do.

The classes of `error_kinds` carry the gRPC code, these and those in `reasons` below them the
UPPER_SNAKE reason; `status` maps both to and from the wire, `error_table` finds a class by them.
"""

from yolopool.error_kinds import Cancelled as Cancelled
from yolopool.error_kinds import DataLoss as DataLoss
from yolopool.error_kinds import DeadlineExceeded as DeadlineExceeded
from yolopool.error_kinds import FailedPrecondition as FailedPrecondition
from yolopool.error_kinds import Internal as Internal
from yolopool.error_kinds import InvalidArgument as InvalidArgument
from yolopool.error_kinds import NotFound as NotFound
from yolopool.error_kinds import PermissionDenied as PermissionDenied
from yolopool.error_kinds import ResourceExhausted as ResourceExhausted
from yolopool.error_kinds import Unauthenticated as Unauthenticated
from yolopool.error_kinds import Unavailable as Unavailable
from yolopool.error_kinds import Unimplemented as Unimplemented
from yolopool.error_kinds import YolopoolError as YolopoolError
from yolopool.reasons.alert_errors import AlertNotFound as AlertNotFound
from yolopool.reasons.alert_errors import SilenceNotFound as SilenceNotFound
from yolopool.reasons.alert_errors import WebhookFailed as WebhookFailed
from yolopool.reasons.alert_errors import WebhookNotFound as WebhookNotFound
from yolopool.reasons.client_errors import ExtraMissing as ExtraMissing
from yolopool.reasons.client_errors import FleetFileInvalid as FleetFileInvalid
from yolopool.reasons.client_errors import ForkedProcess as ForkedProcess
from yolopool.reasons.client_errors import VideoNotReadable as VideoNotReadable
from yolopool.reasons.model_errors import ModelReferenced as ModelReferenced
from yolopool.reasons.model_errors import StoreQuota as StoreQuota
from yolopool.reasons.model_errors import ValidationFailed as ValidationFailed
from yolopool.reasons.model_errors import ValidationPending as ValidationPending
from yolopool.reasons.quota_errors import TenantConcurrency as TenantConcurrency
from yolopool.reasons.quota_errors import TenantDay as TenantDay
from yolopool.reasons.quota_errors import TenantMemory as TenantMemory
from yolopool.reasons.quota_errors import TenantRate as TenantRate
from yolopool.reasons.quota_errors import TenantStore as TenantStore
from yolopool.reasons.rollout_errors import AliasChanged as AliasChanged
from yolopool.reasons.rollout_errors import InvalidFamily as InvalidFamily
from yolopool.reasons.rollout_errors import NothingToRollBack as NothingToRollBack
from yolopool.reasons.rollout_errors import RolloutNotFound as RolloutNotFound
from yolopool.reasons.rollout_errors import RolloutNotPossible as RolloutNotPossible
from yolopool.reasons.rollout_errors import SwitchAbandoned as SwitchAbandoned
from yolopool.reasons.run_errors import AnswerNotFinite as AnswerNotFinite
from yolopool.reasons.run_errors import DigestMismatch as DigestMismatch
from yolopool.reasons.run_errors import InferenceFailed as InferenceFailed
from yolopool.reasons.run_errors import LoadFailed as LoadFailed
from yolopool.reasons.source_errors import SourceChanged as SourceChanged
from yolopool.reasons.source_errors import SourceDenied as SourceDenied
from yolopool.reasons.source_errors import SourceInvalid as SourceInvalid
from yolopool.reasons.source_errors import SourceNotFound as SourceNotFound
from yolopool.reasons.source_errors import SourceRefused as SourceRefused
from yolopool.reasons.source_errors import SourceUnavailable as SourceUnavailable
from yolopool.reasons.source_errors import WatchNotFound as WatchNotFound

# --- INVALID_ARGUMENT ------------------------------------------------------------------------


class InvalidModelName(InvalidArgument):
    reason = "INVALID_MODEL_NAME"


class InvalidModelReference(InvalidArgument):
    reason = "INVALID_MODEL_REFERENCE"


class InvalidOption(InvalidArgument):
    reason = "INVALID_OPTION"


class InvalidTensor(InvalidArgument):
    """Of the KServe door: not the tensors that a model takes."""

    reason = "INVALID_TENSOR"


class InvalidMessage(InvalidArgument):
    """What was sent is no message of the method, as the protos have it."""

    reason = "INVALID_MESSAGE"


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


class SignatureInvalid(InvalidArgument):
    """A signature that is nobody's who is trusted, or not of these bytes."""

    reason = "SIGNATURE_INVALID"


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


class KeyNotFound(NotFound):
    reason = "KEY_NOT_FOUND"


class CertificateNotFound(NotFound):
    """No process that joined has this name or id."""

    reason = "CERTIFICATE_NOT_FOUND"


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


class SignatureRequired(FailedPrecondition):
    reason = "SIGNATURE_REQUIRED"


class StaleToken(FailedPrecondition):
    reason = "STALE_TOKEN"


class ImportNotYours(FailedPrecondition):
    reason = "IMPORT_NOT_YOURS"


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


class RequestMemoryFull(ResourceExhausted):
    """A process holds as many bytes of requests as it may."""

    reason = "REQUEST_MEMORY_FULL"


class TooManyStreams(ResourceExhausted):
    """A process has as many open streams as it may."""

    reason = "TOO_MANY_STREAMS"


class RegistryFull(ResourceExhausted):
    """There are as many models, versions, keys or schedules as the registry may have."""

    reason = "REGISTRY_FULL"
    retryable = False


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


class DeviceFailed(Unavailable):
    """The worker's device can't compute any more, and its process ends; the request goes to
    another.
    """

    reason = "DEVICE_FAILED"


class StorageFailed(Unavailable):
    """A disk of the pool can't be written; `place` in the details is the folder on it."""

    reason = "STORAGE_FAILED"


class IssuerUnavailable(Unavailable):
    """The keys of a token's issuer can't be read, and none are known."""

    reason = "ISSUER_UNAVAILABLE"


class RegistryUnavailable(Unavailable):
    reason = "REGISTRY_UNAVAILABLE"


class RegistryRefusesWrites(RegistryUnavailable):
    """The store answers, but takes no writes: it became a replica, or is full."""

    reason = "REGISTRY_REFUSES_WRITES"


# --- DEADLINE_EXCEEDED -------------------------------------------------------------------------


class DeadlineUnmeetable(DeadlineExceeded):
    """The worker estimates that the answer would be late, and refuses: on arrival, or later."""

    reason = "DEADLINE_UNMEETABLE"


# --- UNAUTHENTICATED, PERMISSION_DENIED -------------------------------------------------------


class CredentialsMissing(Unauthenticated):
    """The call has neither an API key nor a token, and no certificate of the pool's."""

    reason = "CREDENTIALS_MISSING"


class CredentialsInvalid(Unauthenticated):
    """The key or token is not known, was revoked or has expired."""

    reason = "CREDENTIALS_INVALID"


class RoleNeeded(PermissionDenied):
    """The caller's role does not allow this method."""

    reason = "ROLE_NEEDED"


class GrantNeeded(PermissionDenied):
    """The method is about every model, and not every model is granted to the caller."""

    reason = "GRANT_NEEDED"


class WorkerNotYours(PermissionDenied):
    """A worker's certificate is used in the name of another worker."""

    reason = "WORKER_NOT_YOURS"

"""Errors of models' gates, references and quotas: part of the tree of `errors`."""

from yolopool.error_kinds import FailedPrecondition, ResourceExhausted


class ValidationFailed(FailedPrecondition):
    """The version did not reach what the gate of its model asks for."""

    reason = "VALIDATION_FAILED"


class ValidationPending(FailedPrecondition):
    """The version was not evaluated yet on the images of its model's gate."""

    reason = "VALIDATION_PENDING"
    retryable = True


class ModelReferenced(FailedPrecondition):
    """Something needs the version that is to be deleted; `references` in the details names it."""

    reason = "MODEL_REFERENCED"


class StoreQuota(ResourceExhausted):
    """Uploads and packs of the models that match a pattern take what they may."""

    reason = "STORE_QUOTA"
    retryable = False

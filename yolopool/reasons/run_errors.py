"""Errors of loads and passes: part of the tree of `errors`."""

from yolopool.error_kinds import DataLoss, Internal


class DigestMismatch(DataLoss):
    reason = "DIGEST_MISMATCH"


class LoadFailed(Internal):
    reason = "LOAD_FAILED"


class InferenceFailed(Internal):
    reason = "INFERENCE_FAILED"


class AnswerNotFinite(InferenceFailed):
    """The model's answer to this image has numbers that are NaN or infinite."""

    reason = "ANSWER_NOT_FINITE"

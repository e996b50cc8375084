"""Errors of alerts and their receivers: part of the tree of `errors`."""

from yolopool.error_kinds import NotFound, Unavailable


class AlertNotFound(NotFound):
    reason = "ALERT_NOT_FOUND"


class SilenceNotFound(NotFound):
    reason = "SILENCE_NOT_FOUND"


class WebhookNotFound(NotFound):
    reason = "WEBHOOK_NOT_FOUND"


class WebhookFailed(Unavailable):
    """A receiver of alerts did not take a message: it can't be reached, or says no."""

    reason = "WEBHOOK_FAILED"

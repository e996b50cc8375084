"""Errors of files that a pool fetches itself, and of watches: part of the tree of `errors`."""

from yolopool.error_kinds import InvalidArgument, NotFound, PermissionDenied, Unavailable


class SourceInvalid(InvalidArgument):
    """What was given is no URI of a model's file, or has a secret in it."""

    reason = "SOURCE_INVALID"


class SourceRefused(PermissionDenied):
    """The control plane may not read from there: by its settings, or by where a name leads."""

    reason = "SOURCE_REFUSED"


class SourceDenied(PermissionDenied):
    """The store does not let the control plane read the file."""

    reason = "SOURCE_DENIED"


class SourceNotFound(NotFound):
    reason = "SOURCE_NOT_FOUND"


class SourceUnavailable(Unavailable):
    """The store does not answer, or ended the answer early."""

    reason = "SOURCE_UNAVAILABLE"


class SourceChanged(Unavailable):
    """The file changed while it was read: what was read is not kept."""

    reason = "SOURCE_CHANGED"


class WatchNotFound(NotFound):
    reason = "WATCH_NOT_FOUND"

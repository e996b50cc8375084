"""Finds an error by its reason or code, as a server sent it or a plan decided it."""

from collections.abc import Iterator, Mapping

from yolopool import errors
from yolopool.errors import Internal, YolopoolError
from yolopool.reasons import (
    alert_errors,
    client_errors,
    model_errors,
    quota_errors,
    rollout_errors,
    run_errors,
    source_errors,
)

_TREE = (
    errors.__name__,
    model_errors.__name__,
    client_errors.__name__,
    quota_errors.__name__,
    rollout_errors.__name__,
    source_errors.__name__,
    alert_errors.__name__,
    run_errors.__name__,
    YolopoolError.__module__,
)


def _children(root: type[YolopoolError]) -> list[type[YolopoolError]]:
    """Of the tree that is sent: a process may have kinds of its own."""
    return [cls for cls in root.__subclasses__() if cls.__module__ in _TREE]


def _tree(root: type[YolopoolError]) -> Iterator[type[YolopoolError]]:
    yield root
    for child in _children(root):
        yield from _tree(child)


# Class by reason, and class by code. A reason that this release does not know (of a newer server)
# becomes the class of its code.
BY_REASON: dict[str, type[YolopoolError]] = {cls.reason: cls for cls in _tree(YolopoolError)}
BY_CODE: dict[str, type[YolopoolError]] = {cls.code: cls for cls in _children(YolopoolError)}


def rebuild(
    code: str,
    reason: str,
    message: str,
    retryable: bool | None = None,
    retry_after_s: float | None = None,
    details: Mapping[str, str] | None = None,
) -> YolopoolError:
    """Makes the error that a server sent; keeps its reason even if this release lacks it."""
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
    """Makes the error of a known reason; an unknown reason becomes Internal and is kept."""
    cls = BY_REASON.get(reason)
    if cls is not None:
        return cls(message, retry_after_s=retry_after_s)
    return rebuild("INTERNAL", reason, message, retry_after_s=retry_after_s)


def known_reason(reason: str) -> str:
    """A reason, or OK, that this release knows; else OTHER: labels of metrics are bounded."""
    return reason if reason in BY_REASON or reason == "OK" else "OTHER"

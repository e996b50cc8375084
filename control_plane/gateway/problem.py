"""Errors as HTTP answers: problem+json (RFC 9457) with the reason and whether to retry."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from yolopool.codes import http_status, of_http
from yolopool.error_table import rebuild
from yolopool.errors import Unauthenticated, YolopoolError

MEDIA_TYPE = "application/problem+json"
# Of statuses that only HTTP has.
REASONS: Mapping[int, str] = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    414: "URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "UNPROCESSABLE_CONTENT",
    429: "TOO_MANY_REQUESTS",
    431: "HEADER_TOO_LARGE",
    503: "UNAVAILABLE",
}
_RETRYABLE = frozenset({408, 429, 503})


def problem(error: YolopoolError, request_id: str = "", status: int = 0) -> Response:
    """The answer for an error; `status`: another one than its code has. Retry-After is whole
    seconds, at least 1.
    """
    status = status or http_status(error.code, error.reason)
    return Response(body_of(error, request_id, status), status, headers_of(error), MEDIA_TYPE)


def headers_of(error: YolopoolError) -> dict[str, str]:
    """What every form of an error has in its header."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.code == Unauthenticated.code:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def body_of(error: YolopoolError, request_id: str, status: int) -> bytes:
    """In ASCII, since a message may name what a caller sent, which need not be text."""
    return json.dumps(fields_of(error, request_id, status)).encode()


def fields_of(error: YolopoolError, request_id: str, status: int) -> dict[str, Any]:
    """The members of a problem; `details` are facts as strings, as by gRPC."""
    fields: dict[str, Any] = {
        "type": "about:blank",
        "title": error.reason,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "reason": error.reason,
        "retryable": error.retryable,
        "request_id": error.details.get("request_id", request_id),
    }
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    if error.details:
        fields["details"] = error.details
    return fields


def of_status(status: int, detail: str, retry_after_s: float | None = None) -> YolopoolError:
    """The error of a status that HTTP itself has, such as 405."""
    code = of_http(status)
    return rebuild(code, REASONS.get(status, code), detail, status in _RETRYABLE, retry_after_s)


def of_library(error: HTTPException, request_id: str, asked: str) -> Response:
    """The answer to what a library or the envelope refuses. asked: method and path."""
    typed: YolopoolError
    if isinstance(error, YolopoolError):
        typed = error
    else:
        detail = str(error.detail)
        if detail == HTTPStatus(error.status_code).phrase:
            # Its own words say nothing of what was asked.
            detail = f"{asked[:200]}: {detail}; /docs lists what there is"
        typed = of_status(error.status_code, detail)
    answer = problem(typed, request_id, error.status_code)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer

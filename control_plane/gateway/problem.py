"""Errors as HTTP answers: problem+json (RFC 9457) with the reason and whether to retry."""

import math
from typing import Any

from starlette.responses import JSONResponse

from yolopool.codes import CODES
from yolopool.errors import YolopoolError

MEDIA_TYPE = "application/problem+json"


class Problem(JSONResponse):
    media_type = MEDIA_TYPE


def problem(error: YolopoolError, request_id: str = "", status: int = 0) -> Problem:
    """The answer for an error; `status`: another one than its code has. Retry-After is whole
    seconds, at least 1.
    """
    status = status or CODES[error.code].http_status
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
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return Problem(fields, status, headers)

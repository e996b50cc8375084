"""What the code of an error is at each door: the gRPC status, the HTTP status, the exit code."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """`http_status` as RFC 9110 has it; `exit_code` of a command that ends with the error."""

    http_status: int
    exit_code: int


# By the name of the gRPC status code, which is `code` of the error classes.
CODES = {
    "INVALID_ARGUMENT": Code(400, 4),
    "UNAUTHENTICATED": Code(401, 1),
    "PERMISSION_DENIED": Code(403, 1),
    "NOT_FOUND": Code(404, 3),
    "FAILED_PRECONDITION": Code(409, 8),
    # What the caller sent is not what it said it would send.
    "DATA_LOSS": Code(422, 4),
    "RESOURCE_EXHAUSTED": Code(429, 7),
    # Not of the RFC: the word of nginx for a caller who left.
    "CANCELLED": Code(499, 1),
    "INTERNAL": Code(500, 1),
    "UNIMPLEMENTED": Code(501, 1),
    "UNAVAILABLE": Code(503, 5),
    "DEADLINE_EXCEEDED": Code(504, 6),
}

# Reasons for which HTTP has a closer word than for their code.
STATUSES = {
    "ARTIFACT_TOO_LARGE": 413,
    "IMAGE_TOO_LARGE": 413,
    "MESSAGE_TOO_LARGE": 413,
    "IMAGE_NOT_DECODABLE": 415,  # it looked at the bytes themselves
    "IMAGE_DAMAGED": 422,
    # 429 is for what a caller did too often; these are of the server.
    "OUT_OF_MEMORY": 503,
    "OUT_OF_FILES": 503,
    "REQUEST_MEMORY_FULL": 503,
    "DISK_FULL": 507,
    "REGISTRY_FULL": 507,
}


def http_status(code: str, reason: str) -> int:
    """The HTTP status of an error."""
    return STATUSES.get(reason) or CODES[code].http_status


def of_http(status: int) -> str:
    """The code of an HTTP status: the one that the table has, else the one of its hundred."""
    for name, code in CODES.items():
        if code.http_status == status:
            return name
    return "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"

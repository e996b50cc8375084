"""What the OpenAPI document says of every route alike: the schema of errors, and its statuses."""

from typing import Any

from control_plane.gateway.problem import MEDIA_TYPE

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "reason", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "the reason again"},
        "status": {"type": "integer", "description": "the HTTP status again"},
        "detail": {"type": "string", "description": "what is wrong, and what to do"},
        "code": {"type": "string", "description": "the gRPC code, such as NOT_FOUND"},
        "reason": {"type": "string", "description": "stable, for programs: MODEL_NOT_FOUND, ..."},
        "retryable": {"type": "boolean", "description": "whether the same call may succeed later"},
        "retry_after_s": {"type": "number", "description": "seconds to wait first, if known"},
        "request_id": {"type": "string", "description": "to search the log for"},
        "details": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "example": {
        "type": "about:blank",
        "title": "MODEL_NOT_FOUND",
        "status": 404,
        "detail": "there is no model 'shape': did you mean shapes?",
        "code": "NOT_FOUND",
        "reason": "MODEL_NOT_FOUND",
        "retryable": False,
        "request_id": "8c5b3a9f1f0e4f43b0d4a0b9e7c2d611",
    },
}
_WORDS = {
    400: "The request is wrong: `detail` says what to change.",
    401: "The call has no API key, or one that is not valid.",
    403: "The key does not allow this, or a page of an origin that is not allowed sent it.",
    404: "What the request names does not exist.",
    405: "The path is there, and not for this method.",
    406: "No form of the answer is one that `Accept` allows.",
    408: "The request came too slowly.",
    409: "Not in this state.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "The body is of no kind that is taken here.",
    422: "What was sent is damaged.",
    429: "No room at the moment.",
    431: "The header is too large.",
    499: "The caller left.",
    500: "A fault of the server: `detail` has an id to search its log for.",
    503: "A part of the pool does not answer at the moment.",
    504: "No answer came in time.",
    507: "A disk of the pool, or its registry, is full.",
}
# One response a status, to be named in `responses=` of a route.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": words,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, words in _WORDS.items()
}
_LIBRARY_FORM = "HTTPValidationError"
_ALWAYS, _WITH_BODY, _OF_KEYS = (400, 414, 431, 500, 503), (408, 413), (401, 403)
_CHANGING = (403,)


def finish(document: dict[str, Any], asks: bool = False) -> dict[str, Any]:
    """Adds to FastAPI's document what is true of all: errors are problems, and refusals that do
    not depend on the route may come from each. `asks`: callers need keys.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    always = (*_ALWAYS, *(_OF_KEYS if asks else ()))
    if asks:
        scheme = {"type": "http", "scheme": "bearer", "description": "An API key."}
        document["components"]["securitySchemes"] = {"key": scheme}
        document["security"] = [{"key": []}]
    for name in (_LIBRARY_FORM, "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for method, operation in path.items():
            answers = operation["responses"]
            if _LIBRARY_FORM in str(answers.get("422")):
                del answers["422"]  # what it means is sent as a problem, with 400
            also = (
                *(_WITH_BODY if "requestBody" in operation else ()),
                *(_CHANGING if method != "get" else ()),
            )
            for status in (*always, *also):
                answers.setdefault(str(status), PROBLEMS[status])
    return document

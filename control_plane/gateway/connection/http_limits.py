"""What one HTTP caller may take of this process: bytes, seconds, connections. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# For the fields beside an image, and for a body that carries no file.
ROOM_BYTES = 1024**2
# Base64 takes four letters for three bytes.
_BASE64_NUMERATOR, _BASE64_DENOMINATOR = 4, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes are bytes. `header_timeout_s`: from the connection, or the first byte of a later
    request, to the end of its header. In each `stall_timeout_s` a body that is being sent, and an
    answer that is being read, must move on by `min_bytes_per_s`.
    """

    max_connections: int = 4096
    max_connections_an_address: int = 2048
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_pipelined: int = 8
    max_parts: int = 64
    header_timeout_s: float = 10.0
    stall_timeout_s: float = 20.0
    min_bytes_per_s: int = 1000
    linger_s: float = 5.0
    keep_alive_s: float = 75.0


@dataclass(frozen=True, slots=True)
class BodyRule:
    """The largest body of the requests of one `method` whose path `pattern` matches. `is_streamed`:
    it is not kept in memory.
    """

    method: str
    pattern: re.Pattern[str]
    limit_bytes: int
    is_streamed: bool = False


class BodyLimits:
    """The first rule that fits a request, else `default_bytes`."""

    def __init__(self, rules: Sequence[BodyRule], default_bytes: int = ROOM_BYTES) -> None:
        self._rules = rules
        self._default = BodyRule("", re.compile(""), default_bytes)

    def of(self, method: str, path: str) -> BodyRule:
        for rule in self._rules:
            if rule.method == method and rule.pattern.match(path):
                return rule
        return self._default


def body_limits(
    max_image_bytes: int, max_artifact_bytes: int, max_message_bytes: int
) -> BodyLimits:
    """Of the doors of a control plane. A JSON body may carry its image as base64."""
    image = max_image_bytes * _BASE64_NUMERATOR // _BASE64_DENOMINATOR + ROOM_BYTES
    images = (r"/v1/detect$", r"/v1/vision/")
    setting = r"/v1/models/.+/(residency|labels|placement|(batching|variant)/[^/]+)$"
    return BodyLimits(
        (
            *(BodyRule("POST", re.compile(pattern), image) for pattern in images),
            BodyRule("POST", re.compile(r"/v2/"), max_message_bytes),
            BodyRule("PUT", re.compile(setting), ROOM_BYTES),
            BodyRule("PUT", re.compile(r"/v1/(artifacts|models)/"), max_artifact_bytes, True),
        )
    )

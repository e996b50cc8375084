"""What one HTTP caller may take of this process: bytes, seconds, connections. Pure."""

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
    answer that is being read, must move on by `min_bytes_per_s`. `max_bodies_bytes`: of all
    requests together, from their arrival until they are answered.
    """

    max_connections: int = 4096
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_pipelined: int = 8
    max_parts: int = 64
    header_timeout_s: float = 10.0
    stall_timeout_s: float = 20.0
    min_bytes_per_s: int = 1000
    linger_s: float = 5.0
    keep_alive_s: float = 75.0
    max_bodies_bytes: int = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The largest body by route: the first of `by_prefix` that the path begins with, else
    `default_bytes`.
    """

    by_prefix: Sequence[tuple[str, int]]
    default_bytes: int = ROOM_BYTES

    def of(self, path: str) -> int:
        for prefix, limit in self.by_prefix:
            if path.startswith(prefix):
                return limit
        return self.default_bytes


def body_limits(
    max_image_bytes: int, max_artifact_bytes: int, max_message_bytes: int
) -> BodyLimits:
    """Of the doors of a control plane. A JSON body may carry its image as base64."""
    image = max_image_bytes * _BASE64_NUMERATOR // _BASE64_DENOMINATOR + ROOM_BYTES
    return BodyLimits(
        (
            ("/v1/detect", image),
            ("/v1/vision/", image),
            ("/v1/uploads", max_artifact_bytes + ROOM_BYTES),
            ("/v2/", max_message_bytes),
        )
    )


class BodyBudget:
    """The bytes of bodies in this process. `take` before they are kept, `give` them back."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0

    def take(self, count: int) -> bool:
        """False: there is no room for so many, and none were taken."""
        if self.taken_bytes + count > self.limit_bytes:
            return False
        self.taken_bytes += count
        return True

    def give(self, count: int) -> None:
        self.taken_bytes -= count

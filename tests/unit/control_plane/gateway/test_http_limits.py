import pytest

from control_plane.gateway.connection.http_limits import ROOM_BYTES, body_limits

IMAGE, ARTIFACT, MESSAGE = 30_000_000, 4_000_000_000, 100_000_000
AS_BASE64 = 40_000_000 + ROOM_BYTES


@pytest.mark.parametrize(
    ("method", "path", "limit", "is_streamed"),
    [
        ("POST", "/v1/detect", AS_BASE64, False),
        ("POST", "/v1/detect/more", ROOM_BYTES, False),
        ("POST", "/v1/vision/custom/a", AS_BASE64, False),
        ("POST", "/v2/models/a/infer", MESSAGE, False),
        ("PUT", "/v1/artifacts/00", ARTIFACT, True),
        ("PUT", "/v1/models/team/a", ARTIFACT, True),
        ("PUT", "/v1/models/team/a/residency", ROOM_BYTES, False),
        ("PUT", "/v1/models/a/batching/cpu", ROOM_BYTES, False),
        ("POST", "/v1/models/a/load", ROOM_BYTES, False),
        ("POST", "/v1/artifacts/00", ROOM_BYTES, False),
        ("GET", "/", ROOM_BYTES, False),
    ],
)
def test_only_what_carries_a_file_may_be_large(
    method: str, path: str, limit: int, is_streamed: bool
) -> None:
    rule = body_limits(IMAGE, ARTIFACT, MESSAGE).of(method, path)
    assert (rule.limit_bytes, rule.is_streamed) == (limit, is_streamed)

import pytest

from control_plane.gateway.connection.http_protocol import without_upgrade


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (
            b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nbody\r\nUpgrade: x",
            b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nIgnored: h2c\r\n\r\nbody\r\nUpgrade: x",
        ),
        (b"GET / HTTP/1.1\r\nupGRADE:a\r\n\r\n", b"GET / HTTP/1.1\r\nIgnored:a\r\n\r\n"),
        (b"GET /Upgrade: HTTP/1.1\r\nA: Upgrade:\r\n\r\n",) * 2,
        (b"\r\n\r\nUpgrade: a",) * 2,
        (b"GET / HTTP/1.1\r\nUpgrade: a",) * 2,
    ],
)
def test_offers_of_another_protocol_are_not_taken(given: bytes, taken: bytes) -> None:
    assert without_upgrade(given) == taken
    assert len(given) == len(taken)

import pytest

from control_plane.gateway.connection.http_protocol import without_offers


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
        (b"GET / HTTP/1.1\r\nUpgrade: a", b"GET / HTTP/1.1\r\nIgnored: a"),
    ],
)
def test_offers_of_another_protocol_are_not_taken(given: bytes, taken: bytes) -> None:
    assert without_offers(given) == (taken, b"")
    assert len(given) == len(taken)


def test_an_offer_in_pieces_is_found_and_a_body_is_left_alone() -> None:
    head = b"POST / HTTP/1.1\r\nA: \r\nUpgrade: h2c\r\n\r\n"
    body = b"body\r\nUpgrade: h2c\r\n\r\n"
    whole = head.replace(b"Upgrade", b"Ignored") + body
    for at in range(1, len(head)):
        first, held = without_offers(head[:at])
        second, rest = without_offers(held + head[at:] + body)
        assert (first + second, rest) == (whole, b""), at

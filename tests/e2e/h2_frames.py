"""Frames of HTTP/2, written by hand: what no client of gRPC would send."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def opened() -> bytes:
    """A connection that is complete."""
    return PREFACE + frame(_SETTINGS, 0, 0, b"")


def ping() -> bytes:
    return frame(_PING, 0, 0, b"12345678")


def headers(path: str, stream: int = 1, **more: str) -> bytes:
    """A call of a method of gRPC, before its message."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
        "content-type": "application/grpc", "te": "trailers", **more,
    }  # fmt: skip
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields.items())
    return frame(_HEADERS, _END_HEADERS, stream, block)


def part_of_message(size: int, part: bytes, stream: int = 1) -> bytes:
    """The beginning of a message of `size` bytes."""
    return frame(_DATA, 0, stream, b"\0" + size.to_bytes(4, "big") + part)


def more(part: bytes, stream: int = 1) -> bytes:
    return frame(_DATA, 0, stream, part)


def _literal(text: str) -> bytes:
    assert len(text) < 127, "a longer one has its length in several bytes"
    return bytes([len(text)]) + text.encode()

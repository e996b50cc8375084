"""Frames of HTTP/2, written by hand: what no client of gRPC would send."""

import contextlib
import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_END_HEADERS = 4
_ACK = 1
_MAX_FRAME = 16384


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
    pairs = (b"\0" + _literal(name) + _literal(value) for name, value in fields.items())
    block = b"".join(pairs)
    return frame(_HEADERS, _END_HEADERS, stream, block)


def part_of_message(size: int, part: bytes, stream: int = 1) -> bytes:
    """The beginning of a message of `size` bytes."""
    return frame(_DATA, 0, stream, b"\0" + size.to_bytes(4, "big") + part)


def more(part: bytes, stream: int = 1) -> bytes:
    return frame(_DATA, 0, stream, part)


def _literal(text: str) -> bytes:
    assert len(text) < 127, "a longer one has its length in several bytes"
    return bytes([len(text)]) + text.encode()


class Sender:
    """A call whose message never ends, on a connection of its own: it sends what it may."""

    def __init__(self, connection: socket.socket, path: str, size: int) -> None:
        self.connection = connection
        self.sent = 0
        self._received = b""
        # Of the connection and of the stream.
        self._windows = [65535, 65535]
        connection.sendall(opened() + headers(path))
        self._send(b"\0" + size.to_bytes(4, "big"))
        connection.setblocking(False)

    def go_on(self) -> None:
        """Sends all that it may now. Raises OSError once it is cut off."""
        with contextlib.suppress(BlockingIOError):
            while part := self.connection.recv(65536):
                self._received += part
        self._read_windows()
        self.connection.settimeout(5)
        while room := min(*self._windows, _MAX_FRAME):
            self._send(bytes(room))
        self.connection.setblocking(False)

    def _send(self, part: bytes) -> None:
        self.connection.sendall(more(part))
        self.sent += len(part)
        self._windows = [window - len(part) for window in self._windows]

    def _read_windows(self) -> None:
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                return
            kind, flags, stream = *self._received[3:5], int.from_bytes(self._received[5:9], "big")
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            if kind == _WINDOW_UPDATE:
                self._windows[min(stream, 1)] += int.from_bytes(payload, "big")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                self.connection.sendall(frame(kind, _ACK, 0, b"" if kind == _SETTINGS else payload))

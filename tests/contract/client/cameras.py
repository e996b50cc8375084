"""Cameras on loopback: MPEG-TS over HTTP, and over RTSP as cameras speak it (TCP, interleaved)."""

import contextlib
import io
import socket
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image, ImageDraw

SIZE, RATE = (160, 120), 25
_PACKET, _PACKETS = 188, 7
_HTTP = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


def pictures(count: int) -> Iterator[Image.Image]:
    """A yellow square that goes right, four pixels a frame."""
    for number in range(count):
        picture = Image.new("RGB", SIZE, (40, 40, 60))
        ImageDraw.Draw(picture).rectangle((4 * number % 120, 40, 4 * number % 120 + 30, 70), "gold")
        yield picture


def square_at(pixels: Any) -> int:
    """Where the square of a picture begins, in pixels."""
    row = np.asarray(pixels)[55].astype(int)
    return int(np.argmax(row[:, 0] > 150))


def write_video(file: str | Path | IO[bytes], count: int, kind: str | None = None) -> None:
    """Writes a video of so many frames; the format follows the file's name, or `kind`."""
    place = str(file) if isinstance(file, Path) else file
    with av.open(place, "w", format=kind) as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.time_base = Fraction(1, RATE)
        for number, picture in enumerate(pictures(count)):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def transport_stream(count: int) -> bytes:
    file = io.BytesIO()
    write_video(file, count, "mpegts")
    return file.getvalue()


class Camera:
    """Each viewer gets `frames` frames at once and is cut off. `views` counts them.

    Closed, it refuses connections, and `again` listens on the same port.
    """

    def __init__(self, frames: int = 50) -> None:
        self._stream = transport_stream(frames)
        self.views = 0
        self.port = 0
        self.asked: list[str] = []
        self.again()

    def again(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        # A listener in accept is woken by this alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}/live"

    @property
    def rtsp(self) -> str:
        return f"rtsp://viewer:secret@127.0.0.1:{self.port}/door"

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                viewer, _ = listener.accept()
            except OSError:
                return
            with viewer, contextlib.suppress(OSError, ValueError):
                self._answer(viewer, viewer.makefile("rb"))

    def _answer(self, viewer: socket.socket, asked: IO[bytes]) -> None:
        while line := asked.readline().decode().strip():
            method, url, kind = line.split()
            self.asked.append(method)
            headers = dict(_headers(asked))
            if kind.startswith("HTTP"):
                self.views += 1
                viewer.sendall(
                    b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self._stream
                )
                return
            viewer.sendall(_rtsp(method, url, headers["cseq"]))
            if method == "PLAY":
                self.views += 1
                for packet in _rtp(self._stream):
                    viewer.sendall(packet)
                return


def _headers(asked: IO[bytes]) -> Iterator[tuple[str, str]]:
    while line := asked.readline().decode().strip():
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _rtsp(method: str, url: str, number: str) -> bytes:
    """The answers of a camera that sends MPEG-TS in RTP through the connection of its commands."""
    headers, body = [f"CSeq: {number}", "Session: 1"], ""
    if method == "OPTIONS":
        headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
    elif method == "DESCRIBE":
        body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=door\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
        headers += [f"Content-Base: {url}/", "Content-Type: application/sdp"]
        headers.append(f"Content-Length: {len(body)}")
    elif method == "SETUP":
        headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
    return "\r\n".join(["RTSP/1.0 200 OK", *headers, "", body]).encode()


def _rtp(stream: bytes) -> Iterator[bytes]:
    step = _PACKET * _PACKETS
    for number, begin in enumerate(range(0, len(stream), step)):
        payload = stream[begin : begin + step]
        head = struct.pack("!BBHII", 0x80, 33, number & 0xFFFF, number * 3600, 1)
        yield struct.pack("!cBH", b"$", 0, len(head) + len(payload)) + head + payload

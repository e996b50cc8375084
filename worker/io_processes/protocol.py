"""The messages between the device process and an I/O process, over a socket pair.

Pixels are not sent: they are in shared memory, and a message says where. A call goes ASK, PREPARE,
PREPARED (or UNPREPARED), then RESPONSE or ERROR. FREE says that the device process has released the
pixels.
"""

import asyncio
import enum
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from worker.arrays import U8
from worker.preprocess.letterbox import Letterboxed
from worker.preprocess.prepared import Prepared, PreprocessSpec
from worker.preprocess.tiling import Tiling
from yolopool.tls.certificates import Certificates, certificates_of
from yolopool.vocabulary import ShapePolicy

# A length, a kind and a call. Most messages have a few hundred bytes, a response with 3,000 boxes
# has 200 KB, and masks have at most results.MAX_MASK_BYTES.
_HEAD = struct.Struct("<IBQ")
MAX_BYTES = 32 * 1024**2
_SPEC = struct.Struct("<III???IdB")
_PREPARED = struct.Struct("<Q9I2d")
_REMAINING = struct.Struct("<d")
_NUMBER = struct.Struct("<Q")
# The most of what an I/O process says of damage: a sentence of its decoder.
_DAMAGE_BYTES = 300


class MessageKind(enum.IntEnum):
    """All messages but START, LISTENING, PING and PONG belong to a call."""

    START = 0  # to the I/O process: its IoSettings
    LISTENING = 1  # from it: its port
    ASK = 2  # from it: the seconds left, and the request without its image
    PREPARE = 3  # to it: the request is admitted; how to prepare the image
    PREPARED = 4  # from it: where the pixels are
    UNPREPARED = 5  # from it: the error of preparing the image
    RESPONSE = 6  # to it: the response
    ERROR = 7  # to it: the error of the call
    FREE = 8  # to it: nobody reads the pixels any more
    CANCEL = 9  # from it: the caller left
    PING = 10  # to it: answer at once
    PONG = 11  # from it: the number of the image it has worked on for the longest time; 0 if none


@dataclass(frozen=True, slots=True)
class IoSettings:
    """The settings of an I/O process."""

    host: str
    port: int
    threads: int
    capacity: int
    max_image_bytes: int
    max_image_pixels: int
    max_raw_bytes: int
    log_level: str
    log_json: bool
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def certificates(self) -> Certificates | None:
        """As of the worker's settings."""
        paths = (self.tls_ca, self.tls_cert, self.tls_key)
        return certificates_of(*(Path(path) if path else None for path in paths))


class FrameProtocol(asyncio.Protocol):
    """Sends and receives whole messages. Calls `receive` for each, and `lost` once, at the end."""

    def __init__(
        self, receive: Callable[[MessageKind, int, bytes], None], lost: Callable[[], None]
    ) -> None:
        self._receive = receive
        self._lost = lost
        self._in = bytearray()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._in += data
        at, end = 0, len(self._in)
        while end - at >= _HEAD.size:
            size, kind, call = _HEAD.unpack_from(self._in, at)
            if size > MAX_BYTES:
                self.close()
                return
            stop = at + _HEAD.size + size
            if stop > end:
                break
            self._receive(MessageKind(kind), call, bytes(self._in[at + _HEAD.size : stop]))
            at = stop
        del self._in[:at]

    def send(self, kind: MessageKind, call: int = 0, payload: bytes = b"") -> None:
        """Sends a message; drops it if the connection is lost."""
        if not self._out:  # all messages of one turn of the loop go out in one write
            self._loop.call_soon(self._flush)
        self._out.append(_HEAD.pack(len(payload), kind, call) + payload)

    def end(self) -> None:
        """Closes the connection after all messages are sent; `lost` follows."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Aborts the connection; `lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))


def pack_settings(settings: IoSettings) -> bytes:
    return json.dumps(asdict(settings)).encode()


def read_settings(payload: bytes) -> IoSettings:
    return IoSettings(**json.loads(payload))


def pack_number(number: int) -> bytes:
    return _NUMBER.pack(number)


def read_number(payload: bytes) -> int:
    (number,) = _NUMBER.unpack(payload)
    return int(number)


def pack_ask(remaining_s: float | None, request: bytes) -> bytes:
    return _REMAINING.pack(float("inf") if remaining_s is None else remaining_s) + request


def read_ask(payload: bytes) -> tuple[float | None, bytes]:
    (remaining,) = _REMAINING.unpack_from(payload)
    return (None if remaining == float("inf") else remaining), payload[_REMAINING.size :]


def pack_spec(spec: PreprocessSpec) -> bytes:
    square = spec.policy is ShapePolicy.SQUARE
    tiling = spec.tiling or Tiling(0, 0.0)
    size = spec.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return _SPEC.pack(
        height,
        width,
        spec.stride,
        square,
        spec.crop,
        spec.accept_damaged,
        tiling.size,
        tiling.overlap,
        spec.channels,
    )


def read_spec(payload: bytes) -> PreprocessSpec:
    height, width, stride, square, crop, accept_damaged, side, overlap, channels = _SPEC.unpack(
        payload
    )
    size = height if height == width else (height, width)
    policy = ShapePolicy.SQUARE if square else ShapePolicy.RECT
    tiling = Tiling(side, overlap) if side else None
    return PreprocessSpec(size, stride, policy, crop, tiling, accept_damaged, channels)


def pack_prepared(prepared: Prepared, at: int) -> bytes:
    """`at` is the offset of the pixels in the shared memory."""
    letterboxed = prepared.letterboxed
    where = _PREPARED.pack(
        at,
        *letterboxed.image.shape,
        *letterboxed.original_shape,
        *prepared.image_shape,
        *prepared.offset,
        prepared.decode_s,
        prepared.preprocess_s,
    )
    return where + prepared.damage.encode()[:_DAMAGE_BYTES]


def read_prepared(payload: bytes, pixels: Callable[[int, int], U8]) -> Prepared:
    """`pixels(offset, size_bytes)` returns a flat view of the shared memory."""
    at, height, width, channels, old_height, old_width, *whole, decode_s, preprocess_s = (
        _PREPARED.unpack_from(payload)
    )
    damage = payload[_PREPARED.size :][:_DAMAGE_BYTES].decode(errors="replace")
    image = pixels(at, height * width * channels).reshape(height, width, channels)
    letterboxed = Letterboxed(image, (old_height, old_width))
    shape, offset = (whole[0], whole[1]), (whole[2], whole[3])
    return Prepared(letterboxed, shape, offset, decode_s, preprocess_s, damage)

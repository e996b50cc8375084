"""Small messages between the device process and an I/O process, over a socket of their own.

Pixels never pass: they lie in shared memory, and a message says where. A call goes ASK, GO, READY
(or FAILED), then ANSWER or NO; GIVEN says that the device process has let go of its pixels.
"""

import asyncio
import enum
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

from worker.arrays import U8
from worker.preprocess.letterbox import Letterboxed
from worker.preprocess.prepared import Prepared, PreprocessSpec
from worker.preprocess.tiling import Tiling
from yolopool.vocabulary import ShapePolicy

# A length, a kind and a call; a message is a few hundred bytes, an answer of 3,000 boxes 200 KB,
# and masks at most results.MAX_MASK_BYTES.
_HEAD = struct.Struct("<IBQ")
MAX_BYTES = 32 * 1024**2
_FRAMING = struct.Struct("<II??Id")
_PREPARED = struct.Struct("<Q8I2d")
_REMAINING = struct.Struct("<d")
_NUMBER = struct.Struct("<Q")


class MessageKind(enum.IntEnum):
    """What a message says; all but START, LISTENING, PING and PONG are of one call."""

    START = 0  # to the I/O process: IoSettings
    LISTENING = 1  # from it: its port
    ASK = 2  # from it: seconds left, and the request without its image
    GO = 3  # admitted: prepare the image so
    READY = 4  # from it: where the pixels are
    FAILED = 5  # from it: why there are none
    ANSWER = 6  # the response
    NO = 7  # an error
    GIVEN = 8  # nobody reads the pixels any more
    CANCEL = 9  # from it: the caller went away
    PING = 10  # to it: to be answered at once
    PONG = 11  # from it: the number of the image that it prepares for the longest time, 0: none


@dataclass(frozen=True, slots=True)
class IoSettings:
    """What an I/O process is started with."""

    host: str
    port: int
    threads: int
    capacity: int
    max_image_bytes: int
    max_image_pixels: int
    log_level: str
    log_json: bool


class FrameProtocol(asyncio.Protocol):
    """Whole messages, both ways. `heard` gets each; `lost` is called once, at the end."""

    def __init__(
        self, heard: Callable[[MessageKind, int, bytes], None], lost: Callable[[], None]
    ) -> None:
        self._heard = heard
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
            self._heard(MessageKind(kind), call, bytes(self._in[at + _HEAD.size : stop]))
            at = stop
        del self._in[:at]

    def send(self, kind: MessageKind, call: int = 0, payload: bytes = b"") -> None:
        """Once the connection is gone, nobody is told."""
        if not self._out:  # what is said in one turn of the loop goes out in one write
            self._loop.call_soon(self._flush)
        self._out.append(_HEAD.pack(len(payload), kind, call) + payload)

    def end(self) -> None:
        """Drops the connection once all that was said has gone out; `lost` follows."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Drops the connection; `lost` follows."""
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


def pack_framing(spec: PreprocessSpec) -> bytes:
    square = spec.policy is ShapePolicy.SQUARE
    tiling = spec.tiling or Tiling(0, 0.0)
    return _FRAMING.pack(
        spec.image_size, spec.stride, square, spec.crop, tiling.size, tiling.overlap
    )


def read_framing(payload: bytes) -> PreprocessSpec:
    image_size, stride, square, crop, side, overlap = _FRAMING.unpack(payload)
    policy = ShapePolicy.SQUARE if square else ShapePolicy.RECT
    return PreprocessSpec(image_size, stride, policy, crop, Tiling(side, overlap) if side else None)


def pack_prepared(prepared: Prepared, at: int) -> bytes:
    """`at`: where the pixels begin in the shared memory."""
    boxed = prepared.letterboxed
    return _PREPARED.pack(
        at,
        *boxed.image.shape[:2],
        *boxed.original_shape,
        *prepared.image_shape,
        *prepared.offset,
        prepared.decode_s,
        prepared.preprocess_s,
    )


def read_prepared(payload: bytes, pixels: Callable[[int, int], U8]) -> Prepared:
    """`pixels` answers a flat view of the shared memory: from an offset, so many bytes."""
    at, height, width, old_height, old_width, *whole, decode_s, preprocess_s = _PREPARED.unpack(
        payload
    )
    image = pixels(at, height * width * 3).reshape(height, width, 3)
    letterboxed = Letterboxed(image, (old_height, old_width))
    return Prepared(letterboxed, (whole[0], whole[1]), (whole[2], whole[3]), decode_s, preprocess_s)

"""The device process's side of one I/O process: its calls, its memory, and what it is told.

A call is admitted here before its image is decoded there. What the I/O process says of its memory
is checked: whoever took it over with a picture reads and writes nothing but its own slots.
"""

import asyncio
import mmap
import struct
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from worker.arrays import U8
from worker.concurrency.reply import Reply
from worker.io_processes import protocol
from worker.io_processes.protocol import FrameProtocol, MessageKind
from worker.preprocess.arena import Arena
from worker.preprocess.prepared import ImageConsumer, ImageSource, PreprocessSpec, T
from worker.service.infer_handler import DEFAULT_DEADLINE_S
from yolopool import status
from yolopool.errors import DeadlineExceeded, Internal, QueueFull, YolopoolError
from yolopool.v1 import worker_pb2

log = structlog.get_logger()
Infer = Callable[
    [worker_pb2.InferRequest, float | None, ImageSource], Awaitable[worker_pb2.InferResponse]
]


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An image that is being prepared there; its pixels take so many bytes at most."""

    request: str
    most_bytes: int
    consumer: ImageConsumer[Any]
    reply: Reply[Any]


class IoConnection:
    """All methods are of the event loop. `infer` is `WorkerRpc.infer`; at most `capacity` calls
    are open. `listening` has the port once it does, 0 if it never will. `pongs` counts answers to
    pings, `oldest` is what the last one said. `in_hand`: requests whose images were being prepared
    when it was lost, by id.
    """

    def __init__(self, infer: Infer, memory: int, capacity: int) -> None:
        self.frames = FrameProtocol(self._heard, self._end)
        self.lost = asyncio.Event()
        self.listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pongs = self.oldest = 0
        self.in_hand: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._infer = infer
        self._capacity = capacity
        self._arena = Arena(mmap.mmap(memory, 0))
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._awaited: dict[int, _Awaited] = {}

    async def end(self, limit_s: float) -> None:
        """Drops the connection once open calls are answered and the answers have gone out; what is
        not answered in so many seconds is cut.
        """
        if self._calls:
            await asyncio.wait(tuple(self._calls.values()), timeout=limit_s)
        self.frames.end()

    def _heard(self, kind: MessageKind, call: int, payload: bytes) -> None:
        if kind is MessageKind.ASK:
            self._ask(call, payload)
        elif kind is MessageKind.CANCEL:
            if (task := self._calls.get(call)) is not None:
                task.cancel()
        elif kind is MessageKind.READY:
            self._ready(call, payload)
        elif kind is MessageKind.FAILED:
            if (one := self._awaited.pop(call, None)) is not None:
                one.reply.fail(status.from_bytes(payload))
        elif kind is MessageKind.PONG:
            self.pongs, self.oldest = self.pongs + 1, protocol.read_number(payload)
        elif kind is MessageKind.LISTENING and not self.listening.done():
            self.listening.set_result(int.from_bytes(payload, "little"))

    def _ask(self, call: int, payload: bytes) -> None:
        if len(self._calls) >= self._capacity or call in self._calls:
            full = QueueFull(
                f"{self._capacity} calls of one I/O process are open: try again shortly"
            )
            self.frames.send(MessageKind.NO, call, status.to_bytes(full))
            return
        remaining_s, header = protocol.read_ask(payload)
        request = worker_pb2.InferRequest.FromString(header)
        task = self._loop.create_task(self._answer(call, request, remaining_s))
        self._calls[call] = task
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _answer(
        self, call: int, request: worker_pb2.InferRequest, remaining_s: float | None
    ) -> None:
        try:
            limit_s = DEFAULT_DEADLINE_S if remaining_s is None else remaining_s
            until = self._loop.time() + limit_s
            image = _RemoteImage(self, call, request.request_id, until)
            response = await self._infer(request, remaining_s, image)
            self.frames.send(MessageKind.ANSWER, call, response.SerializeToString())
        except YolopoolError as error:
            self.frames.send(MessageKind.NO, call, status.to_bytes(error))
        except Exception as error:
            incident = uuid.uuid4().hex[:12]
            log.error("unexpected error", method="Infer", incident=incident, exc_info=error)
            internal = Internal(
                f"internal error {incident}: look for this id in the server's log",
                details={"incident": incident},
            )
            self.frames.send(MessageKind.NO, call, status.to_bytes(internal))

    async def prepare(
        self, image: "_RemoteImage", spec: PreprocessSpec, consumer: ImageConsumer[T]
    ) -> T:
        """Has the image of one call prepared in the I/O process."""
        call = image.call
        reply: Reply[T] = Reply()
        self._awaited[call] = _Awaited(image.request_id, spec.max_bytes, consumer, reply)
        self.frames.send(MessageKind.GO, call, protocol.pack_framing(spec))
        late = self._loop.call_at(image.until, self._late, call)
        try:
            return await reply.future
        finally:
            late.cancel()
            self._awaited.pop(call, None)
            del reply  # an error keeps this frame, and it keeps the error

    def _late(self, call: int) -> None:
        if (one := self._awaited.pop(call, None)) is not None:
            why = "the image was not decoded in time: allow more, or add I/O processes"
            one.reply.fail(DeadlineExceeded(why))

    def _ready(self, call: int, payload: bytes) -> None:
        one = self._awaited.get(call)
        if one is None or one.reply.future.done():
            self.frames.send(MessageKind.GIVEN, call)  # its caller went away
            return
        try:
            pixels = partial(self._pixels, call, one.most_bytes)
            prepared = protocol.read_prepared(payload, pixels)
        except (ValueError, struct.error):
            log.error("an I/O process says what can't be: it is ended")
            self.frames.close()
            return
        del self._awaited[call]
        try:
            one.consumer(prepared, one.reply)
        except Exception as error:
            one.reply.fail(error)

    def _pixels(self, call: int, most_bytes: int, offset: int, size_bytes: int) -> U8:
        if not 0 < size_bytes <= most_bytes:
            raise ValueError(f"{size_bytes} bytes of pixels, of at most {most_bytes}")
        image = self._arena.view(offset, size_bytes, partial(self._gone, call))
        image.flags.writeable = False
        return image

    def _gone(self, call: int) -> None:
        """On the thread that held the pixels last."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.frames.send, MessageKind.GIVEN, call)

    def _end(self) -> None:
        awaited = self._awaited.values()
        self.in_hand = tuple(one.request for one in awaited if not one.reply.future.done())
        self.lost.set()
        for task in list(self._calls.values()):
            task.cancel()
        if not self.listening.done():
            self.listening.set_result(0)


@dataclass(frozen=True, slots=True)
class _RemoteImage:
    """The image of one call, whose bytes are in the I/O process: an ImageSource. An I/O process
    that hangs holds no ticket beyond `until`, in the loop's time.
    """

    connection: IoConnection
    call: int
    request_id: str
    until: float

    async def prepare_then(self, spec: PreprocessSpec, consumer: ImageConsumer[T]) -> T:
        return await self.connection.prepare(self, spec, consumer)

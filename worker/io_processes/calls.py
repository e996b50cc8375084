"""The device process's side of one I/O process: its calls and its memory.

A call is admitted here before its image is decoded there. What the I/O process says about its
memory is checked, so that an image that took it over can reach nothing but the process's own slots.
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
class _Pending:
    """An image that the I/O process prepares. Its pixels take at most `max_bytes`."""

    request_id: str
    max_bytes: int
    consumer: ImageConsumer[Any]
    reply: Reply[Any]


class IoConnection:
    """All methods run on the event loop. `infer` is `InferHandler.infer`; at most `capacity` calls
    are open. `listening` gets the port, or 0 if the process never listens. `pongs` counts the
    answers to pings, and `oldest` is the number in the last one. `in_flight` are the ids of the
    requests whose images were being prepared when the connection was lost.
    """

    def __init__(self, infer: Infer, memory: int, capacity: int) -> None:
        self.frames = FrameProtocol(self._receive, self._end)
        self.lost = asyncio.Event()
        self.listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pongs = self.oldest = 0
        self.in_flight: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._infer = infer
        self._capacity = capacity
        self._arena = Arena(mmap.mmap(memory, 0))
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._pending: dict[int, _Pending] = {}

    async def end(self, limit_s: float) -> None:
        """Closes the connection after the open calls are answered. Calls that are still open at the
        limit are cut.
        """
        if self._calls:
            await asyncio.wait(tuple(self._calls.values()), timeout=limit_s)
        self.frames.end()

    def _receive(self, kind: MessageKind, call: int, payload: bytes) -> None:
        if kind is MessageKind.ASK:
            self._ask(call, payload)
        elif kind is MessageKind.CANCEL:
            if (task := self._calls.get(call)) is not None:
                task.cancel()
        elif kind is MessageKind.PREPARED:
            self._prepared(call, payload)
        elif kind is MessageKind.UNPREPARED:
            if (image := self._pending.pop(call, None)) is not None:
                image.reply.fail(status.from_bytes(payload))
        elif kind is MessageKind.PONG:
            self.pongs, self.oldest = self.pongs + 1, protocol.read_number(payload)
        elif kind is MessageKind.LISTENING and not self.listening.done():
            self.listening.set_result(int.from_bytes(payload, "little"))

    def _ask(self, call: int, payload: bytes) -> None:
        if len(self._calls) >= self._capacity or call in self._calls:
            full = QueueFull(
                f"{self._capacity} calls of one I/O process are open: try again shortly"
            )
            self.frames.send(MessageKind.ERROR, call, status.to_bytes(full))
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
            self.frames.send(MessageKind.RESPONSE, call, response.SerializeToString())
        except YolopoolError as error:
            self.frames.send(MessageKind.ERROR, call, status.to_bytes(error))
        except Exception as error:
            incident = uuid.uuid4().hex[:12]
            log.error("unexpected error", method="Infer", incident=incident, exc_info=error)
            internal = Internal(
                f"internal error {incident}: look for this id in the server's log",
                details={"incident": incident},
            )
            self.frames.send(MessageKind.ERROR, call, status.to_bytes(internal))

    async def prepare(
        self, image: "_RemoteImage", spec: PreprocessSpec, consumer: ImageConsumer[T]
    ) -> T:
        """Has the image of one call prepared in the I/O process."""
        call = image.call
        reply: Reply[T] = Reply()
        self._pending[call] = _Pending(image.request_id, spec.max_bytes, consumer, reply)
        self.frames.send(MessageKind.PREPARE, call, protocol.pack_spec(spec))
        late = self._loop.call_at(image.until, self._late, call)
        try:
            return await reply.future
        finally:
            late.cancel()
            self._pending.pop(call, None)
            del reply  # an error keeps this frame, and the reply keeps the error

    def _late(self, call: int) -> None:
        if (image := self._pending.pop(call, None)) is not None:
            why = "the image was not decoded in time: allow more time, or add I/O processes"
            image.reply.fail(DeadlineExceeded(why))

    def _prepared(self, call: int, payload: bytes) -> None:
        image = self._pending.get(call)
        if image is None or image.reply.future.done():
            self.frames.send(MessageKind.FREE, call)  # the caller left
            return
        try:
            pixels = partial(self._pixels, call, image.max_bytes)
            prepared = protocol.read_prepared(payload, pixels)
        except (ValueError, struct.error):
            log.error("an I/O process sent an impossible message, ending it")
            self.frames.close()
            return
        del self._pending[call]
        try:
            image.consumer(prepared, image.reply)
        except Exception as error:
            image.reply.fail(error)

    def _pixels(self, call: int, max_bytes: int, offset: int, size_bytes: int) -> U8:
        if not 0 < size_bytes <= max_bytes:
            raise ValueError(f"{size_bytes} bytes of pixels, of at most {max_bytes}")
        image = self._arena.view(offset, size_bytes, partial(self._gone, call))
        image.flags.writeable = False
        return image

    def _gone(self, call: int) -> None:
        """Runs on the thread that held the pixels last."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.frames.send, MessageKind.FREE, call)

    def _end(self) -> None:
        images = self._pending.values()
        self.in_flight = tuple(
            image.request_id for image in images if not image.reply.future.done()
        )
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

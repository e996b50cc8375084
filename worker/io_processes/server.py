"""An I/O process: takes Infer calls and prepares their images in memory that it shares with the
device process, which admits and runs them. `python -m worker.io_processes.server SOCKET MEMORY`
(descriptors).

Several of them do in parallel what one interpreter lock would serialise: gRPC and protobuf. An
image that kills a decoder kills one of these and not the device process. Imports no torch.
"""

import asyncio
import faulthandler
import itertools
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from worker.arrays import U8
from worker.io_processes import protocol
from worker.io_processes.protocol import FrameProtocol, MessageKind
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ImageLimits
from worker.preprocess.prepared import Prepared, PreprocessSpec
from worker.preprocess.preprocessor import Preprocessor
from worker.service import convert
from worker.service.callers import asks_clients, guards
from yolopool import status
from yolopool.errors import InvalidOption, QueueFull, WorkerLost, YolopoolError
from yolopool.server import grpc_server, logs, process
from yolopool.v1 import worker_pb2

SERVICE = "yolopool.v1.WorkerService"
CLOSING_S = 0.2
MAX_HEADER_BYTES = 256 * 1024


class EngineClient:
    """Calls to the device process; at most `capacity` are open."""

    def __init__(self, arena: Arena) -> None:
        self.oldest: Callable[[], int] = lambda: 0  # `Preprocessor.oldest`, once there is one
        self.started: asyncio.Future[protocol.IoSettings] = asyncio.Future()
        self.lost = asyncio.Event()
        self.frames = FrameProtocol(self._receive, self._end)
        self.capacity = 0  # set by START
        self._arena = arena
        self._numbers = itertools.count(1)
        # The messages of the device process for each call.
        self._inboxes: dict[int, asyncio.Queue[tuple[MessageKind, bytes]]] = {}
        # Pixels that the device process may still read. They can outlive their call.
        self._pixels: dict[int, U8] = {}

    async def infer(
        self,
        header: bytes,
        remaining_s: float | None,
        prepare: Callable[[PreprocessSpec], Awaitable[Prepared]],
    ) -> bytes:
        """The serialized response. Raises the errors of the device process and of `prepare`."""
        if len(self._inboxes) >= self.capacity:
            raise QueueFull(
                f"{self.capacity} calls of this I/O process are open: try again shortly"
            )
        if self.lost.is_set():
            raise _lost()
        call = next(self._numbers)
        inbox = self._inboxes[call] = asyncio.Queue()
        try:
            self.frames.send(MessageKind.ASK, call, protocol.pack_ask(remaining_s, header))
            kind, payload = await inbox.get()
            if kind is MessageKind.PREPARE:
                await self._prepare(call, prepare(protocol.read_spec(payload)))
                kind, payload = await inbox.get()
        except BaseException:  # the caller left, or a bug: nobody waits for the response
            self.frames.send(MessageKind.CANCEL, call)
            raise
        finally:
            del self._inboxes[call]
        if kind is MessageKind.ERROR:
            raise status.from_bytes(payload)
        return payload

    async def _prepare(self, call: int, work: Awaitable[Prepared]) -> None:
        try:
            prepared = await work
        except YolopoolError as error:
            self.frames.send(MessageKind.UNPREPARED, call, status.to_bytes(error))
            return
        image = self._pixels[call] = prepared.letterboxed.image
        where = protocol.pack_prepared(prepared, self._arena.offset_of(image))
        self.frames.send(MessageKind.PREPARED, call, where)

    def _receive(self, kind: MessageKind, call: int, payload: bytes) -> None:
        if kind is MessageKind.START:
            settings = protocol.read_settings(payload)
            self.capacity = settings.capacity
            self.started.set_result(settings)
        elif kind is MessageKind.FREE:
            self._pixels.pop(call, None)
        elif kind is MessageKind.PING:
            self.frames.send(MessageKind.PONG, 0, protocol.pack_number(self.oldest()))
        elif (inbox := self._inboxes.get(call)) is not None:
            inbox.put_nowait((kind, payload))

    def _end(self) -> None:
        self.lost.set()
        if not self.started.done():
            self.started.cancel()
        for inbox in self._inboxes.values():
            inbox.put_nowait((MessageKind.ERROR, status.to_bytes(_lost())))


class IoService:
    """Serves Infer only. All other methods are the device process's."""

    def __init__(self, engine: EngineClient, preprocessor: Preprocessor) -> None:
        self._engine = engine
        self._preprocessor = preprocessor

    async def infer(self, request: worker_pb2.InferRequest, context: Any) -> bytes:
        source, region = convert.source_of(request), convert.region_of(request.options)
        request.ClearField("encoded" if request.HasField("encoded") else "raw")
        header = request.SerializeToString()
        if len(header) > MAX_HEADER_BYTES:
            raise InvalidOption(
                f"the options of this request take {len(header)} bytes: at most "
                f"{MAX_HEADER_BYTES} are accepted"
            )

        async def prepare(spec: PreprocessSpec) -> Prepared:
            return await self._preprocessor.prepare(source, region, spec, request.tenant)

        return await self._engine.infer(header, context.time_remaining(), prepare)

    def handler(self) -> grpc.GenericRpcHandler:
        """The response is passed on as the device process serialized it."""
        method = grpc.unary_unary_rpc_method_handler(
            self.infer,
            request_deserializer=worker_pb2.InferRequest.FromString,
            response_serializer=bytes,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Infer": method})


def _lost() -> WorkerLost:
    return WorkerLost("the device process of this worker ended before it answered: try again")


async def serve(socket_fd: int, memory: int) -> None:
    """Serves until the device process closes its end of the socket, or dies."""
    handle = mmap.mmap(memory, 0)
    os.close(memory)
    arena = Arena(handle)
    engine = EngineClient(arena)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: engine.frames, sock=socket.socket(fileno=socket_fd))
    settings = await engine.started
    logs.set_up_logs("worker-io", settings.log_level, settings.log_json, queued=False)
    limits = ImageLimits(
        settings.max_image_bytes, settings.max_image_pixels, settings.max_raw_bytes
    )
    preprocessor = Preprocessor(settings.threads, settings.capacity, limits, arena, time.monotonic)
    preprocessor.start()
    engine.oldest = lambda: preprocessor.oldest
    certificates = settings.certificates()
    server = grpc_server.GrpcServer([SERVICE], guards(certificates))
    server.server.add_generic_rpc_handlers((IoService(engine, preprocessor).handler(),))
    port = await server.start(
        settings.host, settings.port, certificates, asks_clients(certificates)
    )
    await server.set_serving(True)
    process.settle()
    engine.frames.send(MessageKind.LISTENING, 0, port.to_bytes(2, "little"))
    await engine.lost.wait()
    await server.stop(CLOSING_S)


def main() -> None:
    """Ends with the device process, even while a decoder runs."""
    # Dumps the stacks when the process crashes, or hangs and is aborted.
    faulthandler.enable()
    # Terminals and service managers signal all processes of a group. This one ends when the device
    # process has answered the last calls.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))


async def _serve(socket_fd: int, memory: int) -> None:
    code = 1
    try:
        await serve(socket_fd, memory)
        code = 0
    except asyncio.CancelledError:
        code = 0  # the device process ended before it sent START
    except OSError as error:
        sys.stderr.write(f"I/O process can't run: {error}\n")
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()

"""An I/O process: takes Infer calls, decodes and letterboxes into memory it shares with the device
process, which admits, runs and answers. `python -m worker.io_processes.server SOCKET MEMORY`
(descriptors).

Several of them share what one interpreter lock can't: gRPC and protobuf. A picture that kills a
decoder kills one of these, and not the process that holds the device. Imports no torch.
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
from yolopool import status
from yolopool.errors import InvalidOption, QueueFull, WorkerLost, YolopoolError
from yolopool.server import grpc_server, logs, process
from yolopool.v1 import worker_pb2

SERVICE = "yolopool.v1.WorkerService"
CLOSING_S = 0.2
MAX_HEADER_BYTES = 256 * 1024


class EngineClient:
    """Calls to the device process; at most `capacity` under way."""

    def __init__(self, arena: Arena) -> None:
        self.oldest: Callable[[], int] = lambda: 0  # `Intake.oldest`, once there is one
        self.started: asyncio.Future[protocol.IoSettings] = asyncio.Future()
        self.lost = asyncio.Event()
        self.frames = FrameProtocol(self._heard, self._end)
        self.capacity = 0  # known once started
        self._arena = arena
        self._numbers = itertools.count(1)
        # What the device process said of each call.
        self._words: dict[int, asyncio.Queue[tuple[MessageKind, bytes]]] = {}
        # Pixels that the device process may read still: longer than their call, if that is left.
        self._lent: dict[int, U8] = {}

    async def infer(
        self,
        header: bytes,
        remaining_s: float | None,
        prepare: Callable[[PreprocessSpec], Awaitable[Prepared]],
    ) -> bytes:
        """The response, serialized; raises what the device process or `prepare` raises."""
        if len(self._words) >= self.capacity:
            raise QueueFull(
                f"{self.capacity} calls are under way in this I/O process: try again shortly"
            )
        if self.lost.is_set():
            raise _lost()
        call = next(self._numbers)
        words = self._words[call] = asyncio.Queue()
        try:
            self.frames.send(MessageKind.ASK, call, protocol.pack_ask(remaining_s, header))
            kind, payload = await words.get()
            if kind is MessageKind.GO:
                await self._prepare(call, prepare(protocol.read_framing(payload)))
                kind, payload = await words.get()
        except BaseException:  # its caller left, or a fault of ours: nobody waits for the answer
            self.frames.send(MessageKind.CANCEL, call)
            raise
        finally:
            del self._words[call]
        if kind is MessageKind.NO:
            raise status.from_bytes(payload)
        return payload

    async def _prepare(self, call: int, work: Awaitable[Prepared]) -> None:
        try:
            prepared = await work
        except YolopoolError as error:
            self.frames.send(MessageKind.FAILED, call, status.to_bytes(error))
            return
        image = self._lent[call] = prepared.letterboxed.image
        where = protocol.pack_prepared(prepared, self._arena.offset_of(image))
        self.frames.send(MessageKind.READY, call, where)

    def _heard(self, kind: MessageKind, call: int, payload: bytes) -> None:
        if kind is MessageKind.START:
            settings = protocol.read_settings(payload)
            self.capacity = settings.capacity
            self.started.set_result(settings)
        elif kind is MessageKind.GIVEN:
            self._lent.pop(call, None)
        elif kind is MessageKind.PING:
            self.frames.send(MessageKind.PONG, 0, protocol.pack_number(self.oldest()))
        elif (words := self._words.get(call)) is not None:
            words.put_nowait((kind, payload))

    def _end(self) -> None:
        self.lost.set()
        if not self.started.done():
            self.started.cancel()
        for words in self._words.values():
            words.put_nowait((MessageKind.NO, status.to_bytes(_lost())))


class IoService:
    """Infer, and nothing else: orders go to the device process."""

    def __init__(self, link: EngineClient, preprocessor: Preprocessor) -> None:
        self._link = link
        self._preprocessor = preprocessor

    async def infer(self, request: worker_pb2.InferRequest, context: Any) -> bytes:
        source, region = convert.source_of(request), convert.region_of(request.options)
        request.ClearField("encoded" if request.HasField("encoded") else "raw")
        header = request.SerializeToString()
        if len(header) > MAX_HEADER_BYTES:
            raise InvalidOption(
                f"the options of this request take {len(header)} bytes: at most "
                f"{MAX_HEADER_BYTES} are taken"
            )

        async def prepare(spec: PreprocessSpec) -> Prepared:
            return await self._preprocessor.prepare(source, region, spec)

        return await self._link.infer(header, context.time_remaining(), prepare)

    def handler(self) -> grpc.GenericRpcHandler:
        """The response passes as the device process serialized it."""
        method = grpc.unary_unary_rpc_method_handler(
            self.infer,
            request_deserializer=worker_pb2.InferRequest.FromString,
            response_serializer=bytes,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Infer": method})


def _lost() -> WorkerLost:
    return WorkerLost("the device process of this worker ended before it answered: try again")


async def serve(door: int, memory: int) -> None:
    """Serves until the device process closes its end, or is gone."""
    handle = mmap.mmap(memory, 0)
    os.close(memory)
    arena = Arena(handle)
    link = EngineClient(arena)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: link.frames, sock=socket.socket(fileno=door))
    settings = await link.started
    logs.set_up_logs("worker-io", settings.log_level, settings.log_json)
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    preprocessor = Preprocessor(settings.threads, settings.capacity, limits, arena, time.monotonic)
    preprocessor.start()
    link.oldest = lambda: preprocessor.oldest
    server = grpc_server.GrpcServer([SERVICE])
    server.server.add_generic_rpc_handlers((IoService(link, preprocessor).handler(),))
    port = await server.start(settings.host, settings.port)
    await server.set_serving(True)
    process.settle()
    link.frames.send(MessageKind.LISTENING, 0, port.to_bytes(2, "little"))
    await link.lost.wait()
    await server.stop(CLOSING_S)


def main() -> None:
    """Ends when the device process does, whatever a decoder is at then."""
    # The stacks of one that crashes, or hangs and is told to abort.
    faulthandler.enable()
    # A terminal and a service's host tell all processes to end: it is for the device process to
    # say when the last calls are answered.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))


async def _serve(door: int, memory: int) -> None:
    code = 1
    try:
        await serve(door, memory)
        code = 0
    except asyncio.CancelledError:
        code = 0  # told nothing before the device process went
    except OSError as error:
        sys.stderr.write(f"I/O process can't run: {error}\n")
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()

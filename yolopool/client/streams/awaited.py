"""A stream of frames for asyncio: what `blocking` does, with tasks in place of threads."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc

from yolopool.client.access.credentials import Metadata
from yolopool.client.images import ImageLike
from yolopool.client.streams.frames import Frame, FrameResult, StreamMessages, as_frame
from yolopool.client.streams.outbox import Outbox
from yolopool.client.streams.reopening import Reopening
from yolopool.errors import CredentialsInvalid, Unavailable, YolopoolError
from yolopool.status import error_from_rpc

Frames = AsyncIterable[ImageLike | Frame] | Iterable[ImageLike | Frame]


class AsyncFrameStream:
    """`results` it once. `method` is the stub's."""

    def __init__(
        self,
        method: Callable[..., Any],
        messages: StreamMessages,
        frames: Frames,
        patience_s: float,
        proxy: str,
        credentials: Callable[[], Awaitable[Metadata]],
    ) -> None:
        opening = messages.opening
        self._method = method
        self._messages = messages
        self._frames = frames
        self._patience_s = patience_s
        self._proxy = proxy
        self._credentials = credentials
        self._shown: Metadata = ()
        self._outbox = Outbox[Frame](opening.newest_only, opening.window)
        self._changed = asyncio.Event()
        self._connection = 0

    async def results(self) -> AsyncIterator[FrameResult]:
        """As those of the blocking stream."""
        taking = asyncio.create_task(self._take_all(), name="frames of a stream")
        reopening = Reopening(self._patience_s)
        call: Any = None
        try:
            while not self._outbox.done:
                reopening.opened(time.monotonic())
                self._shown = await self._credentials()
                call = self._method(self._requests(self._connection), metadata=self._shown)
                try:
                    while (answer := await self._read(call)) is not grpc.aio.EOF:
                        reopening.answered()
                        if (result := self._result(answer)) is not None:
                            yield result
                except grpc.RpcError as error:
                    await self._reopen(reopening, error_from_rpc(error, self._proxy))
                else:
                    if not self._outbox.done:
                        early = Unavailable("the stream ended before its frames")
                        await self._reopen(reopening, early)
            await taking  # raises what the caller's iterator raised
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            if call is not None:
                call.cancel()

    async def _reopen(self, reopening: Reopening, error: YolopoolError) -> None:
        pause_s = reopening.pause_s(time.monotonic())
        refused = isinstance(error, CredentialsInvalid)
        expired = refused and await self._credentials() != self._shown
        if not (expired or isinstance(error, Unavailable)) or pause_s is None:
            raise error
        self._connection += 1
        self._outbox.lost()
        self._changed.set()
        await asyncio.sleep(pause_s)

    async def _take_all(self) -> None:
        try:
            async for frame in _aiter(self._frames):
                self._outbox.take(as_frame(frame), time.monotonic())
                self._changed.set()
                while not self._outbox.may_take:
                    await self._change()
        finally:
            self._outbox.ended = True
            self._changed.set()

    async def _requests(self, connection: int) -> AsyncIterator[Any]:
        yield self._messages.first()
        while self._connection == connection and not self._outbox.sent_all:
            now = time.monotonic()
            outgoing = self._outbox.next(now)
            if outgoing is not None:
                yield self._messages.frame(outgoing)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._outbox.again_s(now)):
                        await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read(self, call: Any) -> Any:
        self._outbox.reader_waits_since = time.monotonic()
        self._changed.set()
        try:
            return await call.read()
        finally:
            self._outbox.reader_waits_since = None

    def _result(self, answer: Any) -> FrameResult | None:
        outgoing = None
        if answer.WhichOneof("outcome"):
            outgoing = self._outbox.answered(answer.frame_id)
        self._outbox.received(answer.received, answer.held)
        dropped = self._outbox.dropped(answer.frame_id)
        self._changed.set()
        if outgoing is None:
            return None
        return self._messages.result(outgoing, answer, dropped, time.monotonic())


async def _aiter(frames: Frames) -> AsyncIterator[ImageLike | Frame]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
    else:
        for frame in frames:
            yield frame
            await asyncio.sleep(0)

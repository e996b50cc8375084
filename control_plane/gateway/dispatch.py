"""The one path behind every door: the methods of this control plane, called without a socket.

A door translates a call into a message, sends it here, and translates the reply. The interceptors
are those of the gRPC server, so that checks, forwarding and errors are the same by every door.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from yolopool.errors import DeadlineExceeded, Internal
from yolopool.server.open_calls import OpenCalls, typed_error


class Caller:
    """A call as the door received it; services and interceptors use it as the context of a call.

    timeout_s: how long the caller waits from now on, None if it does not say. `metadata`: keys in
    lower case. `door` is the word for logs. from_: the address of the caller. `is_admitted`: it is
    part of a call that `Dispatch` has let in. span_id: that of the call in its trace, if the caller
    is told one.
    """

    __slots__ = ("_from", "_until_s", "door", "is_admitted", "metadata", "span_id")

    def __init__(
        self,
        door: str,
        timeout_s: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        from_: str = "",
        is_admitted: bool = False,
        span_id: str = "",
    ) -> None:
        self.door = door
        self.span_id = span_id
        self.metadata = metadata
        self.is_admitted = is_admitted
        self._from = from_
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s

    def time_remaining(self) -> float | None:
        """Seconds that the caller still waits, None if it did not say."""
        return None if self._until_s is None else max(0.0, self._until_s - time.monotonic())

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self.metadata

    def peer(self) -> str:
        """Where the caller is, as gRPC says it; empty: the door does not know."""
        return self._from


@dataclass(frozen=True, slots=True)
class _Details:
    """What interceptors read of a call."""

    method: str
    invocation_metadata: Sequence[tuple[str, str]]


class Dispatch:
    """Services are added to it like to a server of gRPC. `calls` is the gRPC server's."""

    def __init__(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor], calls: OpenCalls
    ) -> None:
        self._interceptors = interceptors
        self._calls = calls
        self._handlers: dict[str, Any] = {}
        self._parsers: dict[str, Callable[[bytes], Any]] = {}
        self._is_leaving = False

    @property
    def is_stopping(self) -> bool:
        """Whether callers should ask another process: this one stops, or is about to."""
        return self._is_leaving or self._calls.refusing

    def leave(self) -> None:
        """From now on `is_stopping`; calls are answered until the gRPC server refuses them."""
        self._is_leaving = True

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As of a gRPC server: the generated `add_XServicer_to_server` calls it."""
        methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
        for name, handler in handlers.items():
            reply = message_factory.GetMessageClass(methods[name].output_type)
            self._handlers[f"/{service}/{name}"] = handler
            self._parsers[f"/{service}/{name}"] = reply.FromString

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """As of a gRPC server; these are the same methods again."""

    def admitted(self) -> AbstractContextManager[None]:
        """One call of a door that takes several here: inside, those of a caller who `is_admitted`
        are answered even if the process stops. Raises Draining.
        """
        return self._calls.one()

    async def unary(
        self, method: str, request: Message | AsyncIterable[Message], caller: Caller
    ) -> Any:
        """The reply of `/package.Service/Method`, which may take a stream of messages.

        Raises YolopoolError: of a surprise INTERNAL with an id for the log.
        """
        limit = asyncio.timeout(caller.time_remaining())
        try:
            with self._calls.one(caller.is_admitted):
                async with limit:
                    handler = await self._handler(method, caller)
                    reply = await (handler.unary_unary or handler.stream_unary)(request, caller)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise DeadlineExceeded(
                    "no answer came in time: try again, or allow more time"
                ) from None
            typed = typed_error(error, method)
            raise typed from (None if typed is error else error)
        # Forwarded to the leader: its reply comes as it was sent.
        return self._parsers[method](reply) if isinstance(reply, bytes) else reply

    async def stream(
        self, method: str, request: Message | AsyncIterable[Message], caller: Caller
    ) -> AsyncIterator[Any]:
        """The replies of a method that answers a stream. Raises YolopoolError."""
        try:
            with self._calls.one(caller.is_admitted):
                pass  # only asked whether it may begin: streams are not counted
            handler = await self._handler(method, caller)
            answers = (handler.unary_stream or handler.stream_stream)(request, caller)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except Exception as error:
            typed = typed_error(error, method)
            raise typed from (None if typed is error else error)

    async def _handler(self, method: str, caller: Caller) -> Any:
        details = _Details(method, caller.metadata)
        handler = await self._through(0, details)
        if handler is None:
            raise Internal(f"{method} is no method of this control plane: this is a bug of a door")
        return handler

    async def _through(self, position: int, details: Any) -> Any:
        if position == len(self._interceptors):
            return self._handlers.get(details.method)

        async def continuation(further: Any) -> Any:
            return await self._through(position + 1, further)

        return await self._interceptors[position].intercept_service(continuation, details)

"""The gRPC server of every server process: error mapping, health, reflection, graceful stop, and a
warning when a port is open to the network.

For control_plane, worker and importer only: the client never imports this.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from yolopool import status
from yolopool.errors import YolopoolError
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.server.limits.intake import Arrival, Intake
from yolopool.server.open_calls import OpenCalls, typed_error
from yolopool.tls.certificates import Certificates
from yolopool.transport import MESSAGE_SIZE_OPTIONS, WITHOUT_PROXY, is_loopback

log = structlog.get_logger()

POLL_S, MIN_STOP_GRACE_S = 0.02, 0.1
# Between processes of a pool, which no proxy stands between.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_SIZE_OPTIONS,
    *WITHOUT_PROXY,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


# Services of gRPC itself, health among them, answer until the end.
_LIBRARY_PREFIX = "/grpc."
# Of a server that was told of none: requests there come from the pool's own processes.
_NO_BUDGET_BYTES = 2**62
# The functions that a handler may have; it has one.
KINDS = ("unary_unary", "stream_unary", "unary_stream", "stream_stream")


def wrapped(handler: Any, call: Callable[[Any], Any], stream: Callable[[Any], Any]) -> Any:
    """A method's handler with its function wrapped: by `call` if it answers once, else by
    `stream`.
    """
    for kind, wrap in zip(KINDS, (call, call, stream, stream), strict=True):
        inner = getattr(handler, kind)
        if inner is not None:
            return handler._replace(**{kind: wrap(inner)})
    return handler


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps a YolopoolError to a status with details, other exceptions to INTERNAL with an id; also
    of messages that can't be read.
    """

    def __init__(self, calls: OpenCalls, intake: Intake) -> None:
        self._calls = calls
        self._intake = intake
        self._streams: set[asyncio.Task[Any]] = set()
        self._ending = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Any, method: str) -> Any:
        """A handler that reads the message itself, as of a stream: where gRPC does, nobody knows
        of a call before its message is whole.
        """
        inner = next(filter(None, (getattr(handler, kind) for kind in KINDS)))
        read, is_stream = handler.request_deserializer or bytes, handler.request_streaming
        arrival = Arrival(self._intake, method, read, is_stream)
        guard = self._guard_stream if handler.response_streaming else self._guard_call
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        own = {"unary_unary": None, "unary_stream": None, kind: guard(inner, method, arrival)}
        return handler._replace(request_streaming=True, request_deserializer=arrival.read, **own)

    def _guard_call(self, inner: Any, method: str, arrival: Arrival) -> Any:
        counted = nullcontext if method.startswith(_LIBRARY_PREFIX) else self._calls.one

        async def call(request: Any, context: Any) -> Any:
            try:
                request = await arrival.message(request, context)
                with counted():
                    answer = await inner(request, context)
                arrival.answers()
                return answer
            except Exception as error:
                failed = _without_frames(error, method)
            # gRPC and the error that `abort` raises hold each other, and this frame, until Python
            # looks for cycles, which it does by their number and not by their bytes.
            del request
            await _abort(context, failed)

        return call

    def _guard_stream(self, inner: Any, method: str, arrival: Arrival) -> Any:
        async def call(request: Any, context: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None, "a call runs in a task"
            failed: YolopoolError | None = None
            self._streams.add(task)
            try:
                request = await arrival.message(request, context)
                answers = inner(request, context)
                if inspect.isawaitable(answers):
                    await (
                        answers
                    )  # it writes to the context, as the Watch of the health service does
                else:
                    async with aclosing(answers):
                        async for answer in answers:
                            yield answer
            except asyncio.CancelledError:
                if not self._ending:
                    raise
                task.uncancel()  # the stream ends normally, so that the caller asks another server
            except Exception as error:
                failed = _without_frames(error, method)
            finally:
                self._streams.discard(task)
            del request
            if failed is not None:
                await _abort(context, failed)

        return call

    def end_streams(self) -> None:
        self._ending = True
        for task in self._streams:
            task.cancel()


def _without_frames(error: Exception, method: str) -> YolopoolError:
    """The error that the caller gets, without what its frames hold, such as an image."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    typed = typed_error(error, method)
    typed.__cause__ = typed.__context__ = None
    return typed.with_traceback(None)


async def _abort(context: Any, error: YolopoolError) -> None:
    await context.abort(
        status.grpc_code(error), error.message, trailing_metadata=status.trailing_metadata(error)
    )


class GrpcServer:
    """A grpc.aio server with error mapping, reflection and health (NOT_SERVING until set).

    `health_servicer` is told of health by `set`, as the library's, which it replaces. `budget`:
    where the bytes of requests count.
    """

    def __init__(
        self,
        service_names: Sequence[str],
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        limits: GrpcLimits = GrpcLimits(),  # noqa: B008 - it is frozen
        health_servicer: Any = None,
        calls: OpenCalls | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        self.calls = calls or OpenCalls()
        self.intake = Intake(limits, budget or ByteBudget(_NO_BUDGET_BYTES))
        # First, so that errors of the other interceptors are mapped too.
        self._errors = ErrorInterceptor(self.calls, self.intake)
        self.server = grpc.aio.server(
            interceptors=[self._errors, *interceptors], options=limits.options()
        )
        self._watching: asyncio.Task[None] | None = None
        self._service_names = list(service_names)
        self._health = health_servicer or health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(
            [*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], self.server
        )

    def listen(
        self, host: str, port: int, certificates: Certificates | None, ask_clients: bool = False
    ) -> int:
        """Binds a port (0: any free one) before the start, and returns it. OSError if it is taken.

        With `ask_clients` only peers that show a certificate of the authority enter.
        """
        own = certificates is not None and certificates.files.has_own
        if not own:
            warn_if_open(host, "gRPC")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificates is None or not own:
                return self.server.add_insecure_port(address)
            return self.server.add_secure_port(address, certificates.of_server(ask_clients))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is another server using it?") from error

    async def start(
        self,
        host: str,
        port: int,
        certificates: Certificates | None = None,
        ask_clients: bool = False,
    ) -> int:
        """Listens as `listen` does, starts, and returns the port."""
        bound = self.listen(host, port, certificates, ask_clients)
        await self.set_serving(False)
        await self.server.start()
        self._watching = asyncio.create_task(self.intake.watch(), name="slow callers")
        return bound

    async def set_serving(self, serving: bool) -> None:
        """Sets the health of the server and of each of its services."""
        word = health_pb2.HealthCheckResponse.SERVING
        if not serving:
            word = health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ["", *self._service_names]:
            await self._health.set(name, word)

    async def stop(self, grace_s: float) -> None:
        """Stops in order: sets NOT_SERVING, refuses new calls (DRAINING), and gives open calls
        `grace_s` seconds. Streams, which may never end, end after the last call.
        """
        await self.set_serving(False)
        # Not left to grpc: its stop cuts calls that have arrived and not reached a handler yet.
        self.calls.refusing = grace_s > 0
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        await asyncio.sleep(POLL_S)  # watchers of health are told before their streams end
        while self.calls.open and loop.time() < until:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(POLL_S)
        self._errors.end_streams()
        # Replies may still be on their way; it returns as soon as none is.
        await self.server.stop(max(min(grace_s, MIN_STOP_GRACE_S), until - loop.time()))
        if self._watching is not None:
            self._watching.cancel()


def open_channel(
    address: str,
    certificates: Certificates | None,
    options: Sequence[tuple[str, int]] = CHANNEL_OPTIONS,
) -> grpc.aio.Channel:
    """A channel to another process of the pool: with TLS if this process has certificates."""
    if certificates is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, certificates.of_client(), options=options)


def warn_if_open(host: str, what: str) -> None:
    """Warns if a port without TLS is open to the network."""
    if not is_loopback(host):
        log.warning(
            "OPEN TO THE NETWORK WITHOUT TLS: anyone who reaches this port can use it",
            port_of=what,
            host=host,
        )

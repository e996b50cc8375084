"""Every rpc of a control plane's gRPC port, KServe v2 among them, as bytes by a real connection."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from control_plane.services.register import SERVICES
from tests.fuzz.doors import pool
from tests.fuzz.doors.pool import CALL_S, KSERVE, WORDS, Pool
from tests.fuzz.target import Target
from yolopool.kserve import grpc_service_pb2  # noqa: F401 - its services are known by it
from yolopool.status import DETAILS_KEY, error_from_rpc

_ANSWERS = 3
# Of gRPC itself, on this side: nobody answered in time, or the call was given up.
_OWN = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_ENDED = "Internal error from Core"  # of grpc.aio: see yolopool.status
_WRONG = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)


class Undocumented(Exception):
    """An answer that says no reason, or that something unforeseen happened."""


class Connection:
    """A connection to a server in this process, whose calls are bytes."""

    def __init__(self, address: str, known: Mapping[str, MethodDescriptor]) -> None:
        self._methods = known
        self._channel = grpc.aio.insecure_channel(address)

    async def call(self, data: bytes) -> str:
        name, body = pool.split(data)
        method = self._methods.get(name)
        if method is None:
            return "no method"
        parts = pool.frames(body) if method.client_streaming else [body]
        ways: dict[tuple[bool, bool], Any] = {
            (False, False): self._channel.unary_unary, (True, False): self._channel.stream_unary,
            (False, True): self._channel.unary_stream, (True, True): self._channel.stream_stream,
        }  # fmt: skip
        way = ways[method.client_streaming, method.server_streaming](name)
        sent: Any = pool.stream_of(parts) if method.client_streaming else parts[0]  # type: ignore[arg-type]
        call = way(sent, timeout=CALL_S, metadata=(("x-request-id", "r1"),))
        try:
            if method.server_streaming:
                for _ in range(_ANSWERS):
                    if await call.read() is grpc.aio.EOF:
                        break
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return f"{method.name} {_reason(error)}"
        except asyncio.CancelledError:
            return f"{method.name} cancelled"
        return f"{method.name} ok"

    async def close(self) -> None:
        await self._channel.close()


def _reason(error: grpc.aio.AioRpcError) -> str:
    typed = error_from_rpc(error)
    has_details = any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())
    if error.details() == _ENDED:
        return "ended while a message was being sent"
    if error.code() in _OWN and not has_details:
        return error.code().name
    if not has_details or (error.code() in _WRONG and typed.reason == error.code().name):
        raise Undocumented(f"{error.code().name}: {error.details()}")
    return typed.reason


class Wire:
    def __init__(self, folder: Path) -> None:
        self._pool = Pool(folder)
        self.loop = self._pool.loop
        self._connection = self.loop.run_until_complete(self._connected())

    async def _connected(self) -> Connection:
        return Connection(self._pool.rig.addresses.grpc, _methods())

    def run(self, data: bytes) -> str:
        outcome = self.loop.run_until_complete(self._connection.call(data))
        self._pool.after()
        return outcome

    def close(self) -> None:
        self.loop.run_until_complete(self._connection.close())
        self._pool.close()


def _methods() -> dict[str, MethodDescriptor]:
    return pool.methods(*SERVICES, KSERVE)


def _seeds() -> list[bytes]:
    return pool.seeds(_methods(), WORDS)


TARGETS = {
    "wire": Target(
        name="wire",
        about="every rpc of a control plane's gRPC port, KServe v2 too",
        open=Wire,
        seeds=_seeds,
        share=20,
        mutate=pool.changed(_methods(), WORDS),
        max_bytes=32 * 1024,
        reopen_after=2000,
        says=pool.SAYS,
        examples=80,
    )
}

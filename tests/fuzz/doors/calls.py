"""Every rpc of a control plane, through its interceptors and services, without a socket."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

from control_plane.gateway.dispatch import Caller
from tests.fuzz import messages
from tests.fuzz.doors import pool
from tests.fuzz.doors.pool import CALL_S, WORDS, Pool
from tests.fuzz.target import Target
from yolopool.errors import Internal, YolopoolError

_ANSWERS = 3


class Calls:
    def __init__(self, folder: Path) -> None:
        self._pool = Pool(folder)
        self.loop = self._pool.loop
        self._methods = pool.control_plane_methods()

    def run(self, data: bytes) -> str:
        name, body = pool.split(data)
        method = self._methods.get(name)
        if method is None:
            return "no method"
        kind = pool.message_class(method)
        parts = pool.frames(body) if method.client_streaming else [body]
        sent = [messages.parsed(kind, part) for part in parts]
        if None in sent:
            return "no protobuf"
        request: Any = pool.stream_of(sent) if method.client_streaming else sent[0]  # type: ignore[arg-type]
        ask = self._stream if method.server_streaming else self._unary
        outcome: str = self.loop.run_until_complete(ask(name, request))
        self._pool.after()
        return f"{method.name} {outcome}"

    async def _unary(self, name: str, request: Any) -> str:
        caller = Caller("fuzz", CALL_S, [("x-request-id", "r1")])
        try:
            reply = await self._pool.rig.plane.dispatch.unary(name, request, caller)
        except YolopoolError as error:
            return _reason(error)
        reply.SerializeToString()
        return "ok"

    async def _stream(self, name: str, request: Any) -> str:
        caller = Caller("fuzz", CALL_S, [("x-request-id", "r1")])
        count = 0
        try:
            async with asyncio.timeout(CALL_S):
                answers = self._pool.rig.plane.dispatch.stream(name, request, caller)
                async with aclosing(answers):  # type: ignore[type-var] # a generator
                    async for answer in answers:
                        answer.SerializeToString()
                        count += 1
                        if count == _ANSWERS:
                            break
        except TimeoutError:
            return "open"
        except YolopoolError as error:
            return _reason(error)
        return "ok"

    def close(self) -> None:
        self._pool.close()


def _reason(error: YolopoolError) -> str:
    if isinstance(error, Internal):
        raise error
    return error.reason


def _seeds() -> list[bytes]:
    return pool.seeds(pool.control_plane_methods(), WORDS)


TARGETS = {
    "calls": Target(
        name="calls",
        about="every rpc of a control plane, by its services",
        open=Calls,
        seeds=_seeds,
        share=50,
        mutate=pool.changed(pool.control_plane_methods(), WORDS),
        max_bytes=32 * 1024,
        reopen_after=2000,
        says=pool.SAYS,
        examples=120,
    )
}

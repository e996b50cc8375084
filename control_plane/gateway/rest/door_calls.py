"""What each call by HTTP needs: who calls, how long, and an end when the caller leaves."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Query
from starlette.requests import Request

from control_plane.gateway.dispatch import Caller
from yolopool.errors import Cancelled, InvalidOption

T = TypeVar("T")

MAX_TIMEOUT_S = 86_400.0
# Not given: None.
Timeout = Annotated[
    float,
    Query(
        gt=0,
        le=MAX_TIMEOUT_S,
        allow_inf_nan=False,
        description="Seconds after which the call gives up; what was begun goes on.",
    ),
]


def caller_of(request: Request, timeout_s: float | None) -> Caller:
    headers = ((key, request.headers[key]) for key in ("traceparent",) if key in request.headers)
    return Caller("http", timeout_s, tuple(headers))


def refuse_unknown(request: Request, known: Iterable[str]) -> None:
    """Raises InvalidOption for a query parameter that nobody reads: it may be misspelt."""
    unknown = sorted(request.query_params.keys() - set(known))
    if unknown:
        raise InvalidOption(
            f"query parameter {unknown[0][:80]!r} is not known: {', '.join(known) or 'none'}"
        )


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """What `work` answers; cancelled when the caller leaves. The body has to be read before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled("the caller left")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> Any:
    while (await request.receive())["type"] != "http.disconnect":
        pass

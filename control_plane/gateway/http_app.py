"""The application of the HTTP port: every HTTP door, health, metrics. Doors translate and decide
nothing; what they call is `Dispatch`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from control_plane.gateway import docs_page, openapi
from control_plane.gateway.connection.envelope import request_id_of
from control_plane.gateway.entrance import Entrance
from control_plane.gateway.problem import of_library, problem
from control_plane.identity.guard import Guard
from control_plane.metrics.exposition import Metrics, text_of
from control_plane.view.view import View
from yolopool import __version__
from yolopool.errors import Cancelled, InvalidArgument, YolopoolError
from yolopool.server.open_calls import typed_error

OPENAPI_URL = "/openapi.json"
# A body may be wrong in more places than a person reads.
MAX_NAMED, MAX_NAME_CHARS = 5, 300
# What a page of another origin may read beside the body.
_EXPOSED = (
    "X-Request-Id", "traceparent", "Retry-After", "Location", "Upload-Offset", "Upload-Complete",
    "WWW-Authenticate",
)  # fmt: skip


class _Application(FastAPI):
    def __init__(self, asks: bool, **more: Any) -> None:
        super().__init__(**more)
        self._asks = asks
        self._document: asyncio.Task[bytes] | None = None

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.finish(super().openapi(), self._asks)
        return self.openapi_schema

    async def document(self) -> bytes:
        """The OpenAPI document as JSON, made once, by a thread: that takes half a second."""
        if self._document is None:
            making = asyncio.to_thread(lambda: orjson.dumps(self.openapi()))
            self._document = asyncio.create_task(making, name="OpenAPI document")
        return await asyncio.shield(self._document)


def build(
    view: View,
    metrics: Metrics,
    doors: Sequence[APIRouter],
    guard: Guard,
    session: Callable[[Scope], str],
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """The application with these doors. `session`: as the entrance has it. `cors_origins`: whose
    pages may call it from a browser.
    """
    # It writes a line for each form that is none.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    app = _Application(
        asks=guard.is_on,
        title="yolopool",
        version=__version__,
        description="Many YOLO models from few devices.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # to where the field Host says
    )
    # The first routes are found first: the data path is among the doors.
    pages = _pages(view, metrics, app.document)
    doors = (*doors, pages, docs_page.pages(OPENAPI_URL))
    for door in doors:
        app.include_router(door)
    app.state.routes = [route for door in doors for route in door.routes]
    app.add_exception_handler(YolopoolError, _typed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_library)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _surprise)
    if guard.is_on:
        app.add_middleware(Entrance, guard=guard, session=session)
    # Outside the entrance: browsers ask without a key whether they may send one.
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    return app


def _pages(
    view: View,
    metrics: Metrics,
    document: Callable[[], Awaitable[bytes]],
) -> APIRouter:
    pages = APIRouter(include_in_schema=False)

    @pages.get(OPENAPI_URL)
    async def openapi_document() -> Response:
        return Response(await document(), media_type="application/json")

    @pages.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        families, accept = metrics.families(), request.headers.get("accept", "")
        # It may be tens of thousands of lines: others are served meanwhile.
        text, content_type = await asyncio.to_thread(text_of, families, accept)
        return Response(text, media_type=content_type)

    @pages.get("/")
    async def index() -> Response:
        return JSONResponse(
            {
                "name": "yolopool control plane",
                "release": __version__,
                "cluster": view.desired.cluster,
                "models": view.catalogue.count(),
                "workers": len(view.workers),
                "registry_available": view.registry_available,
                "see": ["/console/", "/docs", OPENAPI_URL, "/metrics", "/livez", "/readyz?verbose"],
            }
        )

    return pages


async def _typed(request: Request, error: Exception) -> Response:
    assert isinstance(error, YolopoolError)
    return problem(error, request_id_of(request.scope))


async def _invalid(request: Request, error: Exception) -> Response:
    """What FastAPI found wrong with parameters or a body."""
    assert isinstance(error, RequestValidationError)
    all_of_them = error.errors()
    found = [
        f"{'.'.join(map(str, one['loc']))[:MAX_NAME_CHARS]}: {one['msg'][:MAX_NAME_CHARS]}"
        for one in all_of_them[:MAX_NAMED]
    ]
    if len(all_of_them) > MAX_NAMED:
        found.append(f"and {len(all_of_them) - MAX_NAMED} more")
    kind = request.headers.get("content-type", "")
    if all_of_them[0]["loc"] == ("body",) and not kind.startswith("application/json"):
        found.append("a body of JSON is sent with -H 'Content-Type: application/json'")
    return problem(InvalidArgument("; ".join(found)), request_id_of(request.scope))


async def _of_library(request: Request, error: Exception) -> Response:
    """What the library answers by itself, such as 404 of an unknown path."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.scope['path']}"
    answer = of_library(error, request_id_of(request.scope), asked)
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """What may be asked of the path of a request; the library tells of the first route alone."""
    found = {
        method
        for route in request.app.state.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _gone(request: Request, error: Exception) -> Response:
    """Of a caller who left in the middle of a body, which is no surprise. Nobody reads it."""
    return problem(Cancelled("the caller left"), request_id_of(request.scope))


async def _surprise(request: Request, error: Exception) -> Response:
    return problem(typed_error(error, request.scope["path"]), request_id_of(request.scope))

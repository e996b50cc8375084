"""The application of the HTTP port: every HTTP door, health, metrics. Doors translate and decide
nothing; what they call is `Dispatch`.
"""

from collections.abc import Callable, Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from control_plane.gateway.problem import problem
from control_plane.metrics import Metrics
from control_plane.view.view import View
from yolopool import __version__
from yolopool.codes import of_http
from yolopool.error_table import rebuild
from yolopool.errors import InvalidArgument, YolopoolError
from yolopool.server.open_calls import typed_error


def build(
    view: View, metrics: Metrics, is_leader: Callable[[], bool], doors: Sequence[APIRouter]
) -> FastAPI:
    """The application with these doors."""
    app = FastAPI(title="yolopool", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(_pages(view, metrics, is_leader))
    for door in doors:
        app.include_router(door)
    app.add_exception_handler(YolopoolError, _typed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_library)
    app.add_exception_handler(Exception, _surprise)
    return app


def _pages(view: View, metrics: Metrics, is_leader: Callable[[], bool]) -> APIRouter:
    pages = APIRouter(include_in_schema=False)

    @pages.get("/metrics")
    async def show_metrics() -> Response:
        text = metrics.text(
            view.workers,
            view.loads,
            view.registry_available,
            is_leader(),
            view.crash_looping(),
        )
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @pages.get("/livez")
    @pages.get("/healthz")
    async def livez() -> Response:
        """200 while the event loop runs."""
        return PlainTextResponse("ok\n")

    @pages.get("/readyz")
    async def readyz() -> Response:
        """200 once desired state was read, with or without workers."""
        if view.is_loaded:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the registry was not read yet\n", status_code=503)

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
                "see": ["/metrics", "/livez", "/readyz"],
            }
        )

    return pages


async def _typed(_: Request, error: Exception) -> Response:
    assert isinstance(error, YolopoolError)
    return problem(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """What FastAPI found wrong with parameters or a body."""
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return problem(InvalidArgument("; ".join(found)))


async def _of_library(_: Request, error: Exception) -> Response:
    """What the library answers by itself, such as 404 of an unknown path."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    return problem(rebuild(of_http(status), "", str(error.detail)), status=status)


async def _surprise(request: Request, error: Exception) -> Response:
    return problem(typed_error(error, request.url.path))

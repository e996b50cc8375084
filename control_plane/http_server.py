"""The HTTP port, without TLS: metrics for Prometheus, health for orchestrators, a summary."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from control_plane.metrics import Metrics
from control_plane.view.view import View
from yolopool import __version__
from yolopool.server.grpc_server import warn_if_open


def build(view: View, metrics: Metrics, is_leader: Callable[[], bool]) -> Starlette:
    """The application: /metrics, /healthz, /readyz and /."""

    async def show_metrics(_: Request) -> Response:
        text = metrics.text(
            view.workers,
            view.loads,
            view.registry_available,
            is_leader(),
            view.crash_looping(),
        )
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        """200 while the event loop runs."""
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        """200 once desired state was read, with or without workers."""
        if view.is_loaded:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the registry was not read yet\n", status_code=503)

    async def index(_: Request) -> Response:
        return JSONResponse(
            {
                "name": "yolopool control plane",
                "release": __version__,
                "cluster": view.desired.cluster,
                "models": view.catalogue.count(),
                "workers": len(view.workers),
                "registry_available": view.registry_available,
                "see": ["/metrics", "/healthz", "/readyz"],
            }
        )

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", show_metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


class _Server(uvicorn.Server):
    """Leaves signals to `app`, which also stops the gRPC server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """`bind`, then `serve` until `stop`."""

    def __init__(self, application: Starlette) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int) -> int:
        """Returns the port (0: any free one); OSError if it is taken."""
        warn_if_open(host, "HTTP")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: is another server using it?") from error
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        assert self._socket is not None, "serve() before bind(): this is a bug"
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True

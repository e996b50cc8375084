"""Puts the HTTP doors together: routes, what is round every call, and the server. No decisions."""

import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fastapi import APIRouter
from starlette.types import Scope

from control_plane.gateway.admin.event_stream import event_routes
from control_plane.gateway.admin.routes import admin_routes
from control_plane.gateway.admin.uploads import upload_routes
from control_plane.gateway.cameras import DETECT, camera_routes
from control_plane.gateway.connection.envelope import Envelope
from control_plane.gateway.connection.http_limits import HttpLimits, body_limits
from control_plane.gateway.connection.origins import Origins
from control_plane.gateway.dispatch import Caller, Dispatch
from control_plane.gateway.health import health_pages
from control_plane.gateway.health.model_readiness import ModelReadiness
from control_plane.gateway.http_app import build
from control_plane.gateway.http_server import HttpServer
from control_plane.gateway.kserve import http_door
from control_plane.gateway.kserve.operations import Operations
from control_plane.gateway.rest import detection
from control_plane.gateway.rest.pictures import Pictures
from control_plane.identity.guard import Guard
from control_plane.metrics.exposition import Metrics
from control_plane.settings import Settings
from control_plane.types.access.api_key import is_granted
from control_plane.view.view import View
from yolopool.errors import InvalidOption
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.tls.authority import shown
from yolopool.tls.certificates import Certificates
from yolopool.transport import is_loopback
from yolopool.vocabulary import MAX_MESSAGE_BYTES


class HttpDoors:
    """`console`, `session`: its pages, and the key that the session of a browser stands for.

    `bind`, then `serve` until `stop`; `drain` before it."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        metrics: Metrics,
        dispatch: Dispatch,
        kserve: Operations,
        ready: ModelReadiness,
        certificates: Certificates | None,
        guard: Guard,
        budget: ByteBudget,
        console: APIRouter,
        session: Callable[[Scope], str],
    ) -> None:
        limits = HttpLimits(
            max_connections=settings.http_max_connections,
            max_connections_an_address=settings.http_max_connections_an_address,
            max_header_bytes=settings.http_max_header_bytes,
            header_timeout_s=settings.http_header_timeout_s,
            stall_timeout_s=settings.http_stall_timeout_s,
            min_bytes_per_s=settings.http_min_bytes_per_s,
            keep_alive_s=settings.http_keep_alive_s,
        )
        self._pictures = Pictures()
        self._dispatch = dispatch
        doors = [
            detection.router(dispatch, self._pictures, limits.max_parts),
            health_pages.pages(view, ready, lambda: dispatch.is_stopping, guard),
            http_door.router(kserve),
            event_routes(dispatch),
            admin_routes(),
            # A file that is put on a model's path takes what the table leaves.
            upload_routes(dispatch),
            camera_routes(dispatch, settings.camera_model, partial(_names, guard, view)),
            console,
        ]
        allowed = settings.http_cors_origins
        self.application = build(view, metrics, doors, guard, session, allowed)
        self.application.state.dispatch = dispatch
        bodies = body_limits(
            settings.max_image_bytes, settings.max_artifact_bytes, MAX_MESSAGE_BYTES
        )
        is_local, hosts = is_loopback(settings.http_host), list(settings.http_allowed_hosts)
        if hosts or is_local:
            hosts.append(socket.gethostname().lower())
        origins = Origins(settings.http_cors_origins, is_local, frozenset(hosts))
        envelope = Envelope(self.application, bodies, budget, origins)
        self._server = HttpServer(envelope, limits, certificates)
        if certificates is not None and certificates.files.certificate is not None:
            metrics.watch_certificate(partial(_expiry, certificates.files.certificate))

    def bind(self, host: str, port: int) -> int:
        """Returns the port (0: any free one); OSError if it is taken."""
        return self._server.bind(host, port)

    async def serve(self) -> None:
        try:
            await self._server.serve()
        finally:
            self._pictures.close()

    def drain(self) -> None:
        """From now on it is not ready, and connections end with their answer."""
        self._dispatch.leave()
        self._server.drain()

    def renew(self) -> None:
        """The certificate changed."""
        self._server.renew()

    def stop(self) -> None:
        self._server.stop()


def _expiry(certificate: Path) -> float:
    """When it runs out, Unix time; 0: its file can't be read."""
    try:
        return shown(certificate).until_unix_s
    except (OSError, InvalidOption):
        return 0.0


async def _names(guard: Guard, view: View, caller: Caller) -> Sequence[str]:
    """Of the models that are ready and that a caller may see. Raises what refuses the caller."""
    principal = await guard.visitor(DETECT, caller)
    return [name for name in view.catalogue.ready_names() if is_granted(principal.grants, name)]

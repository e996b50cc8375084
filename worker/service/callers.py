"""Who may call a worker: with certificates only control planes, without them whoever reaches it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
import structlog

from yolopool.errors import RoleNeeded
from yolopool.server.grpc_server import wrapped
from yolopool.tls.certificates import Certificates, Peer, peer_of
from yolopool.transport import is_loopback

log = structlog.get_logger()

CONTROL_PLANE = "control-plane"


def asks_clients(certificates: Certificates | None) -> bool:
    """Whether callers must show a certificate: this worker has one, and an authority."""
    files = certificates.files if certificates is not None else None
    return files is not None and files.has_own and files.authority is not None


def warn_if_anyone(host: str, certificates: Certificates | None) -> None:
    """Warns if other machines may command this worker."""
    if not is_loopback(host) and not asks_clients(certificates):
        log.warning(
            "WHO REACHES THIS PORT COMMANDS THIS WORKER: give it a certificate, and the authority "
            "of its control planes",
            host=host,
        )


def guards(certificates: Certificates | None) -> Sequence[grpc.aio.ServerInterceptor]:
    """The interceptors of a worker's server."""
    return [ControlPlanesAlone()] if asks_clients(certificates) else []


class ControlPlanesAlone(grpc.aio.ServerInterceptor):
    """Refuses callers whose certificate is not of a control plane; health answers everyone."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        return wrapped(handler, _checked_call, _checked_stream)


def _checked_call(inner: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        _check(context)
        return await inner(request, context)

    return call


def _checked_stream(inner: Any) -> Any:
    async def answers(request: Any, context: Any) -> Any:
        _check(context)
        async for answer in inner(request, context):
            yield answer

    return answers


def _check(context: Any) -> None:
    peer = peer_of(context)
    if peer is None or peer.role != CONTROL_PLANE:
        _refuse(peer)


def _refuse(peer: Peer | None) -> NoReturn:
    what = f"of a {peer.role}" if peer is not None else "of none of the pool's processes"
    raise RoleNeeded(f"workers obey control planes alone, and this certificate is {what}")

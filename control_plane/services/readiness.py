"""Rejects calls that need desired state until it was read.

Before that, a model that is not known yet would look like one that does not exist.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from yolopool.errors import RegistryUnavailable
from yolopool.server.grpc_server import KINDS

_GATED = frozenset(
    {
        "yolopool.v1.AliasService",
        "yolopool.v1.CertificateService",
        "yolopool.v1.DetectionService",
        "yolopool.v1.ExplainService",
        "yolopool.v1.FamilyService",
        "yolopool.v1.KeyService",
        "yolopool.v1.ModelService",
        "yolopool.v1.ScheduleService",
    }
)


class ReadinessGate(grpc.aio.ServerInterceptor):
    """Callers get UNAVAILABLE; clients retry it, on another control plane if there is one.
    `unread_because` says why desired state was not read.
    """

    def __init__(self, is_loaded: Callable[[], bool], unread_because: Callable[[], str]) -> None:
        self._is_loaded = is_loaded
        self._unread_because = unread_because

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        service = handler_call_details.method.rpartition("/")[0].removeprefix("/")
        if handler is None or service not in _GATED or self._is_loaded():
            return handler
        kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
        refuse = self._refuse_stream if handler.response_streaming else self._refuse
        return handler._replace(**{kind: refuse})

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise RegistryUnavailable(
            f"this control plane has not read the registry yet ({self._unread_because()}): try "
            "again shortly"
        )

    async def _refuse_stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._refuse(request, context)
        yield  # type: ignore[unreachable] # makes it a generator

"""Rejects calls that need desired state until it was read.

Before that, a model that is not known yet would look like one that does not exist.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from yolopool.errors import RegistryUnavailable

_GATED = frozenset(
    {
        "yolopool.v1.DetectionService",
        "yolopool.v1.ExplainService",
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
        kind = "stream_unary" if handler.request_streaming else "unary_unary"
        return handler._replace(**{kind: self._refuse})

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise RegistryUnavailable(
            f"this control plane has not read the registry yet ({self._unread_because()}): try "
            "again shortly"
        )

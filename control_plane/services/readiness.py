"""Calls that need desired state are refused until it was read: a model that is only not known yet
would be told as one that does not exist.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from yolopool.errors import RegistryUnavailable

_NEEDING = frozenset(
    {
        "yolopool.v1.DetectionService",
        "yolopool.v1.ExplainService",
        "yolopool.v1.ModelService",
        "yolopool.v1.ScheduleService",
    }
)


class ReadinessGate(grpc.aio.ServerInterceptor):
    """Callers hear UNAVAILABLE, which clients send again, to another where there is one."""

    def __init__(self, is_loaded: Callable[[], bool]) -> None:
        self._is_loaded = is_loaded

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        service = handler_call_details.method.rpartition("/")[0].removeprefix("/")
        if handler is None or service not in _NEEDING or self._is_loaded():
            return handler
        kind = "stream_unary" if handler.request_streaming else "unary_unary"
        return handler._replace(**{kind: _refuse})


async def _refuse(request: Any, context: Any) -> NoReturn:
    raise RegistryUnavailable(
        "this control plane has just begun and has not read the registry yet: try again shortly"
    )

"""gRPC health of this process, of its services, and of single models: service `model/shapes` or
`model/shapes@3`. Everyone is told of services, of a model who may see it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.gateway.health.model_readiness import ModelReadiness
from control_plane.view.waiters import ANY, Waiters
from yolopool.errors import InvalidModelReference, NotFound, ResourceExhausted
from yolopool.names import parse_ref

PREFIX = "model/"
# Each costs a look at its model whenever something changes in the fleet.
MAX_WATCHERS = 1000
_STATUS: Any = health_pb2.HealthCheckResponse.ServingStatus
# Whether the caller of a context may see the model of a reference.
Sees = Callable[[str, Any], Awaitable[bool]]
_OWN = "health"  # the subject for a change of what `set` says


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # of an untyped library
    """As the library's servicer, and knows models. A model is NOT_SERVING while this process is:
    before desired state was read, and from the begin of a drain.
    """

    def __init__(self, readiness: ModelReadiness, waiters: Waiters, sees: Sees) -> None:
        self._readiness = readiness
        self._sees = sees
        self._waiters = waiters
        self._said: dict[str, int] = {}
        self._watchers = 0

    async def set(self, service: str, status: Any) -> None:
        """Says the status of this process ("") or of a service of it."""
        self._said[service] = status
        self._waiters.wake(_OWN, ANY)

    async def Check(self, request: Any, context: Any) -> Any:
        status = await self._shown(self._status(request.service), request.service, context)
        if status == _STATUS.SERVICE_UNKNOWN:
            raise NotFound(f"there is no service {request.service[:200]!r} here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if self._watchers >= MAX_WATCHERS:
            raise ResourceExhausted(
                f"{MAX_WATCHERS} callers watch the health already: ask by Check"
            )
        service = request.service
        subject = ANY if service.startswith(PREFIX) else _OWN
        told = -1

        def changed() -> int | None:
            status = self._status(service)
            return status if status != told else None

        self._watchers += 1
        try:
            while True:
                status = await self._waiters.until(subject, changed, None)
                assert status is not None, "it waits without a limit"
                told = status
                shown = await self._shown(status, service, context)
                yield health_pb2.HealthCheckResponse(status=shown)
        finally:
            self._watchers -= 1

    async def _shown(self, status: Any, service: str, context: Any) -> Any:
        """The status; of a model that the caller may not see as if there were none."""
        if not service.startswith(PREFIX) or await self._sees(service[len(PREFIX) :], context):
            return status
        return _STATUS.SERVICE_UNKNOWN

    def _status(self, service: str) -> Any:
        if not service.startswith(PREFIX):
            return self._said.get(service, _STATUS.SERVICE_UNKNOWN)
        if self._said.get("") != _STATUS.SERVING:
            return _STATUS.NOT_SERVING
        try:
            why_not = self._readiness.why_not(parse_ref(service.removeprefix(PREFIX)))
        except (NotFound, InvalidModelReference):
            return _STATUS.SERVICE_UNKNOWN
        return _STATUS.SERVING if why_not is None else _STATUS.NOT_SERVING

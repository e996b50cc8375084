"""From a control plane that does not decide to the one that does: its only way out to others.

Admin calls go there as they came, and come back so. A call that was forwarded is served where it
arrives; where the holder does not answer, a call is served here, through the store.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import structlog

from control_plane.convert.versions import key_out
from control_plane.types.desired import VersionKey
from control_plane.view.view import HOLDER, View
from yolopool.errors import RegistryUnavailable, YolopoolError
from yolopool.server.grpc_server import CHANNEL_OPTIONS
from yolopool.status import error_from_rpc
from yolopool.v1 import peer_pb2

log = structlog.get_logger()

FLAG = "yolopool-forwarded"
# What changes the fleet, and what only the one that plans can tell.
FORWARDED = frozenset(
    {
        *(
            f"/yolopool.v1.ModelService/{name}"
            for name in (
                "RegisterModel",
                "GetModel",
                "ListModels",
                "DeleteModel",
                "LoadModel",
                "UnloadModel",
                "SetResidency",
                "SetPlacement",
                "SetBatching",
                "Changeover",
            )
        ),
        "/yolopool.v1.ExplainService/PlanLoad",
        "/yolopool.v1.ExplainService/ExplainModel",
        "/yolopool.v1.FleetService/DrainWorker",
        "/yolopool.v1.ScheduleService/SetSchedule",
        "/yolopool.v1.ScheduleService/DeleteSchedule",
    }
)
WANT = "/yolopool.v1.PeerService/WantVersion"
# By which the transport says that nobody answered, or not one of this release.
_LOST = frozenset({"UNAVAILABLE", "CANCELLED", "UNIMPLEMENTED"})
# What the holder may not have heard of yet, though it is known here.
_NEWS = frozenset({"ARTIFACT_NOT_FOUND", "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "MODEL_NOT_READY"})
_OPTIONS = (
    *CHANNEL_OPTIONS,
    # The longest that a connection may take to stand.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
)


class HolderLost(Exception):
    """The one that decides did not answer, does not decide any more, or lacks what is known here:
    serve the call here.
    """


class Peers:
    """Calls to the holder of the lease; `name` is this control plane's in it."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._channels: dict[str, grpc.aio.Channel] = {}

    def holder(self) -> str:
        """Where another decides; empty: here, or nobody is known to."""
        return self._view.reconciler_address if self._view.reconciler != self._name else ""

    async def want(self, address: str, key: VersionKey, timeout_s: float) -> None:
        """Returns when a worker holds the version. Raises the holder's refusal, or HolderLost."""
        request = peer_pb2.WantVersionRequest(version=key_out(key))
        await self.call(address, WANT, request.SerializeToString(), timeout_s)

    async def call(
        self, address: str, method: str, request: bytes, timeout_s: float | None
    ) -> bytes:
        """Raises the holder's typed error, or HolderLost."""
        answer = asyncio.ensure_future(self._answer(address, method, request, timeout_s))
        moved = asyncio.ensure_future(
            self._view.waiters.until(HOLDER, lambda: self.holder() != address or None, None)
        )
        try:
            await asyncio.wait((answer, moved), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise HolderLost(f"{address} does not decide any more")
            return answer.result()
        except grpc.RpcError as error:
            ours = error_from_rpc(error)
            if ours.reason in _LOST or ours.reason in _NEWS:
                raise HolderLost(f"{address}: {ours.message}") from error
            raise ours from error
        finally:
            answer.cancel()
            moved.cancel()
            await asyncio.gather(answer, moved, return_exceptions=True)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _answer(
        self, address: str, method: str, request: bytes, timeout_s: float | None
    ) -> bytes:
        channel = await self._channel(address)
        flag = ((FLAG, self._name),)
        send: Any = channel.unary_unary(method)  # as bytes, both ways
        answer: bytes = await send(request, timeout=timeout_s, metadata=flag)
        return answer

    async def _channel(self, address: str) -> grpc.aio.Channel:
        """One: of holders that were, nothing is kept."""
        for other in [known for known in self._channels if known != address]:
            await self._channels.pop(other).close()
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return self._channels[address]


class Forwarding(grpc.aio.ServerInterceptor):
    """`refresh` brings this view to what the holder wrote before the caller hears of it."""

    def __init__(self, peers: Peers, refresh: Callable[[], Awaitable[None]]) -> None:
        self._peers = peers
        self._refresh = refresh

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        came_so = any(key == FLAG for key, _ in handler_call_details.invocation_metadata or ())
        if handler is None or method not in FORWARDED or came_so or not self._peers.holder():
            return handler

        async def call(request: Any, context: Any) -> bytes:
            answer = await self._forward(method, request, context)
            if answer is None:
                here = await handler.unary_unary(request, context)
                answer = handler.response_serializer(here)
            return answer

        return handler._replace(unary_unary=call, response_serializer=None)

    async def _forward(self, method: str, request: Any, context: Any) -> bytes | None:
        """The holder's answer; None: serve it here."""
        address = self._peers.holder()
        if not address:
            return None
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            # Served twice, should the holder end before it answers, it is still one.
            request.request_id = uuid4().hex
        left_s = context.time_remaining()
        try:
            answer = await self._peers.call(address, method, request.SerializeToString(), left_s)
        except HolderLost as lost:
            log.info("served here", method=method, why=str(lost))
            return None
        finally:
            await self._caught_up()
        return answer

    async def _caught_up(self) -> None:
        try:
            await self._refresh()
        except (RegistryUnavailable, YolopoolError):
            log.info("what the holder wrote is shown here when the store answers")

"""From a control plane that does not decide to the one that does: its only way out to others.

Admin calls go there as they came, and come back so. A call that was forwarded is served where it
arrives; where the holder does not answer, a call is served here, through the store.
"""

import asyncio
from typing import Any

import grpc
import structlog

from control_plane.convert.versions import key_out
from control_plane.types.version import VersionKey
from control_plane.view.view import LEADER, View
from yolopool.server.grpc_server import CHANNEL_OPTIONS
from yolopool.status import error_from_rpc
from yolopool.v1 import peer_pb2

log = structlog.get_logger()

FLAG = "yolopool-forwarded"
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


class LeaderLost(Exception):
    """The one that decides did not answer, does not decide any more, or lacks what is known here:
    serve the call here.
    """


class LeaderClient:
    """Calls to the holder of the lease; `name` is this control plane's in it."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._channels: dict[str, grpc.aio.Channel] = {}

    def leader(self) -> str:
        """Where another decides; empty: here, or nobody is known to."""
        return self._view.leader_address if self._view.leader != self._name else ""

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
            self._view.waiters.until(LEADER, lambda: self.leader() != address or None, None)
        )
        try:
            await asyncio.wait((answer, moved), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise LeaderLost(f"{address} does not decide any more")
            return answer.result()
        except grpc.RpcError as error:
            ours = error_from_rpc(error)
            if ours.reason in _LOST or ours.reason in _NEWS:
                raise LeaderLost(f"{address}: {ours.message}") from error
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

"""Calls from a follower to the leader: the only connection between control planes.

Requests and replies pass as bytes, unchanged. A forwarded call is served where it arrives. If the
leader does not answer, the follower serves the call itself, through the store.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import structlog

from control_plane.caller import Principal, told
from control_plane.convert.versions import key_out
from control_plane.types.version import VersionKey
from control_plane.view.view import LEADER, View
from yolopool.server.grpc_server import CHANNEL_OPTIONS, open_channel
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import Certificates
from yolopool.transport import bearer
from yolopool.v1 import peer_pb2

log = structlog.get_logger()

FLAG = "yolopool-forwarded"
WANT = "/yolopool.v1.PeerService/WantVersion"
# The transport found nobody, or a leader of another release, or one that does not know our key.
_LOST = frozenset(
    {"UNAVAILABLE", "CANCELLED", "UNIMPLEMENTED", "CREDENTIALS_MISSING", "CREDENTIALS_INVALID"}
)
# The leader may not have read yet what is known here.
_NEWS = frozenset({"ARTIFACT_NOT_FOUND", "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "MODEL_NOT_READY"})
_OPTIONS = (
    *CHANNEL_OPTIONS,
    # How long a connection attempt may take.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
)


class LeaderLost(Exception):
    """The leader did not answer, leads no more, or lacks what is known here: serve it here."""


class LeaderClient:
    """`name` is this control plane's in the lease."""

    def __init__(
        self, view: View, name: str, pool_key: str = "", certificates: Certificates | None = None
    ) -> None:
        self._certificates = certificates
        self._key = bearer(pool_key)
        self._view = view
        self._name = name
        self._channels: dict[str, grpc.aio.Channel] = {}

    def leader(self) -> str:
        """The address of the leader, if another control plane leads; else empty."""
        return self._view.leader_address if self._view.leader != self._name else ""

    async def want(self, address: str, key: VersionKey, timeout_s: float) -> None:
        """Returns when a worker has the version. Raises the leader's typed error, or LeaderLost."""
        request = peer_pb2.WantVersionRequest(version=key_out(key))
        await self.call(address, WANT, request.SerializeToString(), timeout_s)

    async def call(
        self,
        address: str,
        method: str,
        request: bytes,
        timeout_s: float | None,
        caller: Principal | None = None,
    ) -> bytes:
        """The leader's reply to a call of this process, or of a caller that it authenticated.
        Raises the leader's typed error, or LeaderLost.
        """
        metadata = ((FLAG, self._name), *self._key, *told(caller))
        answer = asyncio.ensure_future(self._answer(address, method, request, timeout_s, metadata))
        moved = asyncio.ensure_future(
            self._view.waiters.until(LEADER, lambda: self.leader() != address or None, None)
        )
        try:
            await asyncio.wait((answer, moved), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise LeaderLost(f"{address} leads no more")
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

    async def renew(self) -> None:
        """The certificate of this process changed: further calls connect anew with it."""
        await self.close()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _answer(
        self,
        address: str,
        method: str,
        request: bytes,
        timeout_s: float | None,
        metadata: Sequence[tuple[str, str]],
    ) -> bytes:
        channel = await self._channel(address)
        send: Any = channel.unary_unary(method)  # as bytes, both ways
        answer: bytes = await send(request, timeout=timeout_s, metadata=metadata)
        return answer

    async def _channel(self, address: str) -> grpc.aio.Channel:
        """The channel to the leader; those to earlier leaders are closed."""
        for other in [known for known in self._channels if known != address]:
            await self._channels.pop(other).close()
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._certificates, _OPTIONS)
        return self._channels[address]

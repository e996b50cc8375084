"""PeerService: other control planes ask the leader to load a version."""

from random import Random

from control_plane.caller import CallContext
from control_plane.convert.validation import deadline_of
from control_plane.convert.versions import key_in
from control_plane.models.loading import Loader
from control_plane.routing.balancer import Hold, Reject, choose
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from yolopool.server.clock import Clock
from yolopool.v1 import peer_pb2, peer_pb2_grpc


class PeerService(peer_pb2_grpc.PeerServiceServicer):
    def __init__(
        self, view: View, loader: Loader, clock: Clock, rng: Random, default_deadline_s: float
    ) -> None:
        self._view = view
        self._loader = loader
        self._clock = clock
        self._rng = rng
        self._default_deadline_s = default_deadline_s

    async def WantVersion(
        self, request: peer_pb2.WantVersionRequest, context: CallContext
    ) -> peer_pb2.WantVersionResponse:
        key = key_in(request.version)
        deadline_s = deadline_of(context, self._clock.monotonic(), self._default_deadline_s)
        await self._loader.ensure_loaded(key, lambda: self._worker_now(key), deadline_s, here=True)
        return peer_pb2.WantVersionResponse()

    def _worker_now(self, key: VersionKey) -> WorkerInfo | None:
        """A worker that could answer a Detect now. Raises the plan's final refusal."""
        route = choose(self._view, key, self._clock.monotonic(), self._rng)
        if isinstance(route, Reject):
            raise route.error
        return None if isinstance(route, Hold) else route.worker

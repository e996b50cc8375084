"""PeerService: what other control planes ask of the one that decides."""

from random import Random

from control_plane.caller import CallContext
from control_plane.clock import Clock
from control_plane.convert.validation import deadline_of
from control_plane.convert.versions import key_in
from control_plane.models.loading import Loader
from control_plane.routing.balancer import Hold, Reject, choose
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
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
        await self._loader.ensure_loaded(
            key, lambda: self._worker_that_can_answer(key), deadline_s, here=True
        )
        return peer_pb2.WantVersionResponse()

    def _worker_that_can_answer(self, key: VersionKey) -> WorkerInfo | None:
        """Whoever could answer a Detect now. Raises what the plan says can't be done."""
        route = choose(self._view, key, self._clock.monotonic(), self._rng)
        if isinstance(route, Reject):
            raise route.error
        return None if isinstance(route, Hold) else route.worker

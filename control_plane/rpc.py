"""DetectionService and FleetService: translation and checks at the door, no decisions."""

from dataclasses import dataclass

from control_plane.checks import deadline_of, infer_request
from control_plane.clock import Clock
from control_plane.detecting import Detecting
from control_plane.fleet import ReplicaState, WorkerState
from control_plane.importing import ImportService
from control_plane.metrics import Metrics
from control_plane.principal import CallContext, principal_of
from control_plane.view import View
from control_plane.wire import worker_out
from yolopool import __version__
from yolopool.errors import YolopoolError
from yolopool.names import parse_ref
from yolopool.v1 import (
    detection_pb2,
    detection_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
)


class DetectionService(detection_pb2_grpc.DetectionServiceServicer):
    def __init__(
        self, detecting: Detecting, clock: Clock, default_deadline_s: float, max_image_bytes: int
    ) -> None:
        self._detecting = detecting
        self._clock = clock
        self._default_deadline_s = default_deadline_s
        self._max_image_bytes = max_image_bytes

    async def Detect(
        self, request: detection_pb2.DetectRequest, context: CallContext
    ) -> detection_pb2.DetectResponse:
        deadline_s = deadline_of(context, self._clock.monotonic(), self._default_deadline_s)
        principal = principal_of(context)
        try:
            ref = parse_ref(request.model)
            body = infer_request(request, self._max_image_bytes)
        except YolopoolError as error:
            self._detecting.refused(request, principal, error)
            raise
        return await self._detecting.detect(request, ref, body, principal, deadline_s)


@dataclass(frozen=True, slots=True)
class Identity:
    """This control plane: its name in the lease, and when it began."""

    name: str
    started_unix_s: float


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    def __init__(
        self,
        identity: Identity,
        view: View,
        metrics: Metrics,
        importers: ImportService,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._view = view
        self._metrics = metrics
        self._importers = importers
        self._clock = clock

    async def ListWorkers(
        self, request: fleet_pb2.ListWorkersRequest, context: CallContext
    ) -> fleet_pb2.ListWorkersResponse:
        now, view = self._clock.monotonic(), self._view
        return fleet_pb2.ListWorkersResponse(
            workers=[
                worker_out(view.workers[id_], view.loads.get(id_, view.workers[id_].load), now)
                for id_ in sorted(view.workers)
            ]
        )

    async def GetFleet(
        self, request: fleet_pb2.GetFleetRequest, context: CallContext
    ) -> fleet_pb2.GetFleetResponse:
        view, outcomes = self._view, self._metrics.outcomes
        here = [w for w in view.workers.values() if w.state is not WorkerState.LOST]
        states = [replica.state for worker in here for replica in worker.replicas.values()]
        return fleet_pb2.GetFleetResponse(
            cluster=view.desired.cluster,
            release=__version__,
            started_unix_s=self._identity.started_unix_s,
            control_plane=self._identity.name,
            reconciler=view.reconciler,
            registry_available=view.registry_available,
            models=len(view.catalogue.models),
            versions=len(view.desired.versions),
            workers_ready=sum(worker.state is WorkerState.READY for worker in here),
            workers=len(view.workers),
            importers=self._importers.count(),
            replicas_hot=states.count(ReplicaState.HOT),
            outstanding=sum(view.loads.get(w.id, w.load).outstanding for w in here),
            budget_bytes=sum(worker.ledger.budget_bytes for worker in here),
            used_bytes=sum(worker.ledger.used_bytes for worker in here),
            requests_total=outcomes.total(),
            errors_total=outcomes.total() - outcomes["OK"],
            loads_total=self._metrics.loads_total,
            releases_total=self._metrics.releases_total,
        )

"""FleetService: tells of the workers, sums up the fleet, and drains a worker."""

from dataclasses import dataclass

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.validation import deadline_of
from control_plane.convert.versions import key_out
from control_plane.convert.workers import crashed_out, worker_out
from control_plane.metrics.exposition import Metrics
from control_plane.models.import_jobs import ImportJobs
from control_plane.reconcile.drain_progress import DrainProgress
from control_plane.reconcile.drainer import Drainer
from control_plane.statistics.request_rates import STEP_S, WINDOW_S, Figures, RequestRates
from control_plane.store.registry import DesiredState
from control_plane.types.worker import WorkerInfo, WorkerState
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from control_plane.view.waiters import ANY
from yolopool import __version__
from yolopool.errors import DeadlineExceeded, WorkerNotFound
from yolopool.server.clock import Clock
from yolopool.v1 import fleet_pb2, fleet_pb2_grpc
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()

# For a caller that set no deadline.
DRAIN_WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Identity:
    """This control plane: its name in the leader's lease, and when it started."""

    name: str
    started_unix_s: float


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    def __init__(
        self,
        identity: Identity,
        view: View,
        refresh: Refresh,
        metrics: Metrics,
        import_jobs: ImportJobs,
        registry: DesiredState,
        drainer: Drainer,
        rates: RequestRates,
        clock: Clock,
    ) -> None:
        self._rates = rates
        self._identity = identity
        self._registry = registry
        self._drainer = drainer
        self._view = view
        self._refresh = refresh
        self._metrics = metrics
        self._import_jobs = import_jobs
        self._clock = clock

    async def ListWorkers(
        self, request: fleet_pb2.ListWorkersRequest, context: CallContext
    ) -> fleet_pb2.ListWorkersResponse:
        known = self._known()
        return fleet_pb2.ListWorkersResponse(workers=[known[id_] for id_ in sorted(known)])

    async def GetWorker(
        self, request: fleet_pb2.GetWorkerRequest, context: CallContext
    ) -> fleet_pb2.GetWorkerResponse:
        worker = self._known().get(request.worker)
        if worker is None:
            raise _unknown(request.worker)
        return fleet_pb2.GetWorkerResponse(worker=worker)

    async def GetStatistics(
        self, request: fleet_pb2.GetStatisticsRequest, context: CallContext
    ) -> fleet_pb2.GetStatisticsResponse:
        told = self._rates.figures(self._clock.monotonic())
        return fleet_pb2.GetStatisticsResponse(
            window_s=WINDOW_S, step_s=STEP_S, versions=map(_statistics_out, told)
        )

    async def GetFleet(
        self, request: fleet_pb2.GetFleetRequest, context: CallContext
    ) -> fleet_pb2.GetFleetResponse:
        view, outcomes = self._view, self._metrics.outcomes
        here = [worker for worker in view.workers.values() if worker.state is not WorkerState.LOST]
        states = [replica.state for worker in here for replica in worker.replicas.values()]
        return fleet_pb2.GetFleetResponse(
            cluster=view.desired.cluster,
            release=__version__,
            started_unix_s=self._identity.started_unix_s,
            control_plane=self._identity.name,
            reconciler=view.leader,
            registry_available=view.registry_available,
            models=view.catalogue.count(),
            versions=sum(
                version.given.build_of is None for version in view.desired.versions.values()
            ),
            workers_ready=sum(worker.state is WorkerState.READY for worker in here),
            workers=len(view.workers),
            importers=self._import_jobs.count_importers(),
            replicas_hot=states.count(ReplicaState.HOT),
            outstanding=sum(view.loads.get(worker.id, worker.load).outstanding for worker in here),
            budget_bytes=sum(worker.ledger.budget_bytes for worker in here),
            used_bytes=sum(worker.ledger.used_bytes for worker in here),
            requests_total=outcomes.total(),
            errors_total=outcomes.total() - outcomes["OK"],
            loads_total=self._metrics.loads_total,
            releases_total=self._metrics.releases_total,
            workers_crash_looping=view.crash_looping(),
        )

    async def DrainWorker(
        self, request: fleet_pb2.DrainWorkerRequest, context: CallContext
    ) -> fleet_pb2.DrainWorkerResponse:
        worker = self._view.workers.get(request.worker)
        if worker is None:
            raise _unknown(request.worker)
        log.info("drain requested", worker=worker.id, by=principal_of(context).name)
        await self._registry.cordon(worker.id, worker.incarnation)
        await self._refresh()
        progress = self._drainer.progress(worker)
        if request.wait:
            deadline_s = deadline_of(context, self._clock.monotonic(), DRAIN_WAIT_S)
            progress = await self._drained(worker, progress, deadline_s)
        return fleet_pb2.DrainWorkerResponse(not_moved=[key_out(key) for key in progress.stuck])

    def _known(self) -> dict[str, fleet_pb2.Worker]:
        """Every worker by its id, those too of which only the supervisor tells."""
        now, view = self._clock.monotonic(), self._view
        exits = view.exits.current(now)
        known = {
            id_: worker_out(
                worker,
                view.loads.get(id_, worker.load),
                now,
                view.desired.is_cordoned(worker),
                exits.get(id_),
            )
            for id_, worker in view.workers.items()
        }
        return known | {id_: crashed_out(exit) for id_, exit in exits.items() if id_ not in known}

    async def _drained(
        self, worker: WorkerInfo, progress: DrainProgress, deadline_s: float
    ) -> DrainProgress:
        """The last progress seen before the worker left. Raises DeadlineExceeded."""

        def gone() -> bool | None:
            nonlocal progress
            now = self._view.workers.get(worker.id)
            if now is None or now.incarnation != worker.incarnation:
                return True
            if now.state is WorkerState.READY:
                progress = self._drainer.progress(now)
            return True if now.state is WorkerState.LOST else None

        left_s = deadline_s - self._clock.monotonic()
        if not await self._view.waiters.until(ANY, gone, left_s):
            moving = ", ".join(map(str, progress.moving)) or "its last requests"
            raise DeadlineExceeded(
                f"worker {worker.id} still waits for {moving} at the deadline: the drain goes on"
            )
        return progress


def _unknown(worker: str) -> WorkerNotFound:
    return WorkerNotFound(f"no worker {worker[:120]!r} is known: list the workers")


def _statistics_out(told: Figures) -> fleet_pb2.VersionStatistics:
    return fleet_pb2.VersionStatistics(
        version=key_out(told.key),
        requests_per_s=told.requests_per_s,
        errors_per_s=told.errors_per_s,
        p50_ms=told.p50_ms,
        p99_ms=told.p99_ms,
        queue_ms=told.queue_ms,
        inference_ms=told.inference_ms,
        batch_size=told.batch_size,
        hit_ratio=told.hit_ratio,
        steps=told.steps,
    )

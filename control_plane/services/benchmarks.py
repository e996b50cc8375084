"""BenchService: runs a benchmark on a worker that has the version, and streams its points."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from random import Random

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.validation import deadline_of
from control_plane.convert.versions import key_out
from control_plane.convert.workers import replica_out
from control_plane.models.loading import Loader
from control_plane.routing.balancer import Reject, Send, choose
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import NotAssigned, WorkerNotFound
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import bench_pb2, bench_pb2_grpc, worker_pb2

log = structlog.get_logger()
# For a caller that set no deadline.
DEFAULT_WAIT_S = 600.0


class BenchService(bench_pb2_grpc.BenchServiceServicer):
    def __init__(
        self, view: View, loader: Loader, worker_client: WorkerClient, clock: Clock, rng: Random
    ) -> None:
        self._view = view
        self._loader = loader
        self._worker_client = worker_client
        self._clock = clock
        self._rng = rng

    async def BenchModel(
        self, request: bench_pb2.BenchModelRequest, context: CallContext
    ) -> AsyncIterator[bench_pb2.BenchModelResponse]:
        deadline_s = deadline_of(context, self._clock.monotonic(), DEFAULT_WAIT_S)
        key = self._view.catalogue.ready(parse_ref(request.model)).key
        worker = await self._worker(key, request, deadline_s)
        log.info(
            "benchmark started", version=str(key), worker=worker.id, by=principal_of(context).name
        )
        body = worker_pb2.BenchRequest(version=key_out(key), sweep=request.sweep)
        left_s = max(0.0, deadline_s - self._clock.monotonic())
        # It counts as an open request: its replica is not released for another version, and other
        # requests go to workers with less to do.
        self._view.sent(worker.id, key)
        variant = replica_out(worker.replicas[key]).variant
        try:
            async with aclosing(self._worker_client.bench(worker, body, left_s)) as points:
                async for point in points:
                    yield bench_pb2.BenchModelResponse(
                        version=body.version,
                        worker=worker.id,
                        device_kind=worker.device_kind,
                        device_name=worker.device_name or worker.device,
                        variant=variant,
                        point=point,
                    )
        finally:
            self._view.answered(worker.id, key)

    async def _worker(
        self, key: VersionKey, request: bench_pb2.BenchModelRequest, deadline_s: float
    ) -> WorkerInfo:
        if request.worker and request.worker not in self._view.workers:
            raise WorkerNotFound(f"no worker {request.worker[:120]!r} is known: list the workers")
        worker = self._chosen(key, request)
        if worker is not None:
            return worker
        if request.worker or request.device_kind:
            where = request.worker or f"any worker of kind {request.device_kind}"
            raise NotAssigned(
                f"{key} is not on {where[:120]}: load it there first, or name no worker and no kind"
            )
        return await self._loader.ensure_loaded(key, lambda: self._chosen(key, request), deadline_s)

    def _chosen(self, key: VersionKey, request: bench_pb2.BenchModelRequest) -> WorkerInfo | None:
        """The worker that a Detect would go to, among those that the caller allows."""
        excluded = {
            worker.incarnation
            for worker in self._view.workers.values()
            if request.worker not in ("", worker.id)
            or request.device_kind not in ("", worker.device_kind)
        }
        route = choose(self._view, key, self._clock.monotonic(), self._rng, excluded)
        if isinstance(route, Reject) and not excluded:
            raise route.error
        return route.worker if isinstance(route, Send) else None

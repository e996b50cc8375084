"""WorkerService: translates calls and decides nothing.

Assign, Release and Drain are fenced: a token below the highest one obeyed is refused.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog

from worker.backends.base import Backend
from worker.engine.engine import Engine
from worker.preprocess.prepared import ImageConsumer, PreprocessSpec, T
from worker.preprocess.preprocessor import Preprocessor
from worker.replicas.device_monitor import DeviceMonitor
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from worker.service import convert
from worker.service.bench import CurveRunner
from worker.service.figures import figures_to
from worker.service.identity import Fence, Identity
from worker.service.infer_handler import DEFAULT_DEADLINE_S, InferHandler
from yolopool.v1 import bench_pb2, fleet_pb2, types_pb2, worker_pb2, worker_pb2_grpc

log = structlog.get_logger()
DEFAULT_BENCH_S = 600.0


@dataclass(frozen=True, slots=True)
class RequestImage:
    """The image in a request of this process: an ImageSource. It is read once it is asked for."""

    preprocessor: Preprocessor
    request: worker_pb2.InferRequest

    async def prepare_then(self, spec: PreprocessSpec, consumer: ImageConsumer[T]) -> T:
        source = convert.source_of(self.request)
        region = convert.region_of(self.request.options)
        tenant = self.request.tenant
        return await self.preprocessor.prepare_then(source, region, spec, consumer, tenant)


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    """The servicer; `inventory` is also what heartbeats send."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        handler: InferHandler,
        replicas: ReplicaTable,
        swapper: Swapper,
        device_monitor: DeviceMonitor,
        engine: Engine,
        preprocessor: Preprocessor,
        backend: Backend,
        clock: Callable[[], float],
    ) -> None:
        self.fence = Fence()
        self.told_to_end = asyncio.Event()
        self._identity = identity
        self._handler = handler
        self._replicas = replicas
        self._swapper = swapper
        self._device_monitor = device_monitor
        self._engine = engine
        self._preprocessor = preprocessor
        self._backend = backend
        self._clock = clock
        self._bench = CurveRunner(replicas, swapper, engine, preprocessor, clock)

    async def Assign(self, request: worker_pb2.AssignRequest, context: Any) -> Any:
        self.fence.check(request.token)
        replica = await self._replicas.assign(
            convert.assignment_in(request, self._identity().precision)
        )
        return worker_pb2.AssignResponse(
            replica=convert.replica_to(replica, self._backend, self._engine, self._clock()),
            ledger=self._ledger(),
        )

    async def Release(self, request: worker_pb2.ReleaseRequest, context: Any) -> Any:
        self.fence.check(request.token)
        released = await self._replicas.release(convert.key_of(request.version), request.force)
        return worker_pb2.ReleaseResponse(ledger=self._ledger(), released_bytes=released)

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        image = RequestImage(self._preprocessor, request)
        return await self._handler.infer(request, context.time_remaining(), image)

    async def Bench(
        self, request: worker_pb2.BenchRequest, context: Any
    ) -> AsyncIterator[bench_pb2.BenchPoint]:
        remaining = context.time_remaining()
        deadline = self._clock() + (DEFAULT_BENCH_S if remaining is None else remaining)
        log.info("bench", model=convert.key_of(request.version))
        # If the caller leaves, the generator closes at once and releases the replica.
        async with aclosing(self._bench.points(request, deadline)) as points:
            async for point in points:
                yield point

    async def GetInventory(self, request: worker_pb2.GetInventoryRequest, context: Any) -> Any:
        return worker_pb2.GetInventoryResponse(
            worker=self.inventory(), highest_token=self.fence.highest
        )

    async def Drain(self, request: worker_pb2.DrainRequest, context: Any) -> Any:
        self.fence.check(request.token)
        remaining = context.time_remaining()
        try:
            left = await self._handler.drain(DEFAULT_DEADLINE_S if remaining is None else remaining)
        finally:
            # Not earlier: once the process ends, open calls have only a moment left.
            self.told_to_end.set()
        return worker_pb2.DrainResponse(left=left)

    def inventory(self) -> fleet_pb2.Worker:
        """All that control planes need to know of this worker, as of now."""
        identity = self._identity()
        return fleet_pb2.Worker(
            id=identity.id,
            incarnation=identity.incarnation,
            address=identity.address,
            device=identity.device,
            device_kind=identity.device_kind,
            device_name=identity.device_name,
            state=self._handler.state,
            ledger=self._ledger(),
            load=convert.load_to(self._engine),
            replicas=[
                convert.replica_to(replica, self._backend, self._engine, self._clock())
                for replica in self._replicas.held()
            ],
            labels=identity.labels,
            release=identity.release,
            replaces_because=identity.replaces_because,
            variant=types_pb2.Variant(
                backend=self._backend.name,
                precision=identity.precision,
                device_kind=identity.device_kind,
                compute_class=identity.compute_class,
            ),
            io_addresses=identity.io_addresses,
            figures=figures_to(
                self._device_monitor.stand,
                self._engine.passed,
                self._swapper.evictions,
                self._swapper.reader.evictions,
            ),
        )

    def _ledger(self) -> types_pb2.Ledger:
        return convert.ledger_to(
            self._swapper.ledger,
            measured_bytes=self._backend.memory().used_bytes,
            assignable_bytes=self._replicas.assignable_bytes,
            host_bytes=self._swapper.reader.host_bytes,
            foreign_bytes=self._device_monitor.foreign_bytes,
            drift_bytes=self._device_monitor.drift_bytes,
        )

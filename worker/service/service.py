"""WorkerService: translation and validation at the door, nothing decided.

Who may give orders is decided by the fencing token: a lower one than was obeyed is refused.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import structlog

from worker.backends.base import Backend
from worker.batching.admission import AdmissionRequest
from worker.batching.config import SUSPECT
from worker.engine.engine import Engine, Request
from worker.postprocess.postprocessor import Postprocessor
from worker.preprocess.prepared import Prepare, PreprocessSpec, T, Then
from worker.preprocess.preprocessor import Preprocessor
from worker.process.flight_recorder import FlightRecorder
from worker.replicas.device_monitor import DeviceMonitor
from worker.replicas.replica import Replica
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from worker.service import convert, options, response
from worker.service.bench import CurveRunner
from worker.service.identity import Fence, Identity
from worker.service.inference import Inference, infer
from yolopool.errors import (
    DeadlineExceeded,
    Draining,
    QueueFull,
    YolopoolError,
)
from yolopool.v1 import bench_pb2, detection_pb2, fleet_pb2, types_pb2, worker_pb2, worker_pb2_grpc

log = structlog.get_logger()
# For a caller that set no deadline.
DEFAULT_DEADLINE_S = 30.0
DEFAULT_BENCH_S = 600.0
_POLL_S = 0.02


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    """The servicer; `inventory` is also what heartbeats send."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        replicas: ReplicaTable,
        swapper: Swapper,
        device_monitor: DeviceMonitor,
        engine: Engine,
        preprocessor: Preprocessor,
        postprocessor: Postprocessor,
        backend: Backend,
        box: FlightRecorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fence = Fence()
        self.state = fleet_pb2.WORKER_STATE_STARTING
        self.told_to_end = asyncio.Event()
        self._identity = identity
        self._replicas = replicas
        self._swapper = swapper
        self._device_monitor = device_monitor
        self._engine = engine
        self._preprocessor = preprocessor
        self._postprocessor = postprocessor
        self._backend = backend
        self._clock = clock
        self._bench = CurveRunner(replicas, swapper, engine, preprocessor, clock)
        self._box = box
        # Of the calls of Infer under way, and why they are given up.
        self._open: set[asyncio.Task[Any]] = set()
        self._because: YolopoolError | None = None
        self._suspect = asyncio.Lock()

    @property
    def infers(self) -> int:
        """Calls of Infer under way."""
        return len(self._open)

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
        # Quoted, since a plain annotation would be made anew for each request.
        async def prepare(spec: PreprocessSpec, then: "Then[T]") -> T:
            source, region = convert.source_of(request), convert.region_of(request.options)
            return await self._preprocessor.prepare_then(source, region, spec, then)

        return await self.infer(request, context.time_remaining(), prepare)

    async def infer(
        self, request: worker_pb2.InferRequest, remaining_s: float | None, prepare: Prepare
    ) -> worker_pb2.InferResponse:
        """An Infer that came here or to an I/O process: its image is what `prepare` hands on."""
        began, outcome_word = self._clock(), "OK"
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._open.add(task)
        try:
            deadline = began + (DEFAULT_DEADLINE_S if remaining_s is None else remaining_s)
            return await self._infer(request, deadline, prepare)
        except YolopoolError as error:
            outcome_word = error.reason
            raise
        except asyncio.CancelledError:
            if self._because is not None:
                outcome_word = self._because.reason
                raise self._because from None
            outcome_word = "CANCELLED"
            raise
        except Exception:
            outcome_word = "INTERNAL"
            raise
        finally:
            self._open.discard(task)
            took_s = self._clock() - began
            # Behind what sends the answer.
            task.get_loop().call_soon(self._note, request, outcome_word, took_s)

    async def Bench(
        self, request: worker_pb2.BenchRequest, context: Any
    ) -> AsyncIterator[bench_pb2.BenchPoint]:
        remaining = context.time_remaining()
        deadline = self._clock() + (DEFAULT_BENCH_S if remaining is None else remaining)
        log.info("bench", model=convert.key_of(request.version))
        # Closed at once if the caller leaves, so that nothing is held for nobody.
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
            left = await self.drain(DEFAULT_DEADLINE_S if remaining is None else remaining)
        finally:
            # Not before: the end of the process gives open calls a moment only.
            self.told_to_end.set()
        return worker_pb2.DrainResponse(left=left)

    async def drain(self, limit_s: float) -> int:
        """Refuses new work and waits for what is open; answers what is left at the end."""
        self.state = fleet_pb2.WORKER_STATE_DRAINING
        self._replicas.drain()
        until = self._clock() + limit_s
        while self.infers and self._clock() < until:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_S)
        return self.infers

    def give_up(self, error: YolopoolError) -> int:
        """Answers all calls of Infer, those to come too, with an error; how many are under way."""
        self._because = error
        given_up = len(self._open)
        for task in self._open:
            task.cancel()
        return given_up

    def inventory(self) -> fleet_pb2.Worker:
        """Everything a control plane is to know, as of now."""
        one = self._identity()
        return fleet_pb2.Worker(
            id=one.id,
            incarnation=one.incarnation,
            address=one.address,
            device=one.device,
            device_kind=one.device_kind,
            device_name=one.device_name,
            state=self.state,
            ledger=self._ledger(),
            load=convert.load_to(self._engine),
            replicas=[
                convert.replica_to(replica, self._backend, self._engine, self._clock())
                for replica in self._replicas.held()
            ],
            labels=one.labels,
            release=one.release,
            replaces_because=one.replaces_because,
            variant=types_pb2.Variant(
                backend=self._backend.name,
                precision=one.precision,
                device_kind=one.device_kind,
                compute_class=one.compute_class,
            ),
            io_addresses=one.io_addresses,
        )

    async def _infer(
        self, request: worker_pb2.InferRequest, deadline: float, prepare: Prepare
    ) -> worker_pb2.InferResponse:
        if self._because is not None:
            raise self._because
        if self.state == fleet_pb2.WORKER_STATE_DRAINING:
            raise Draining("this worker is ending: ask another")
        if not request.suspect:
            return await self._run(request, deadline, prepare)
        # One at a time: should the process end, it is known by which of them.
        async with self._suspect:
            return await self._run(request, deadline, prepare)

    async def _run(
        self, request: worker_pb2.InferRequest, deadline: float, prepare: Prepare
    ) -> worker_pb2.InferResponse:
        key = convert.key_of(request.version)
        with self._replicas.ticket(key) as replica, self._box.recording(request.request_id):
            # A suspect goes first and shares no pass, since it is the only one of its priority.
            priority = SUSPECT if request.suspect else convert.priority_of(request)
            batching = replica.batching
            try:
                # Before any work is spent on it: under a flood most are refused.
                place = self._engine.reserve(
                    AdmissionRequest(replica.key, priority, deadline, self._clock(), batching)
                )
                try:
                    settings, task = replica.order.settings, replica.manifest_pack.manifest.task
                    nms = options.resolve(request.options, settings, len(replica.class_names))
                    output_options = options.output_options(request.options, settings, task)
                    if task == options.SEGMENT and nms.masks:
                        self._postprocessor.check()
                    inference = await infer(
                        self._engine,
                        self._postprocessor,
                        Request(replica.key, nms, priority, deadline, batching, place),
                        prepare,
                        convert.framing_of(replica, output_options),
                        output_options,
                    )
                finally:
                    self._engine.free(place)
            except (QueueFull, DeadlineExceeded):
                replica.usage = replica.usage.refused(self._clock())
                raise
            replica.usage = replica.usage.answered(
                self._clock(), inference.outcome.queue_s, inference.device_s
            )
            return self._answer(request, replica, inference, output_options)

    def _answer(
        self,
        request: worker_pb2.InferRequest,
        replica: Replica,
        inference: Inference,
        output_options: options.OutputOptions,
    ) -> worker_pb2.InferResponse:
        one, found, outcome = self._identity(), inference.found, inference.outcome
        height, width = inference.prepared.image_shape
        result = detection_pb2.DetectResponse(
            detections=response.detections_to(found, replica.class_names),
            image_width=width,
            image_height=height,
            version=convert.version_of(replica),
            variant=convert.variant_of(replica, self._backend, one.compute_class),
            worker=one.id,
            device=one.device,
            batch_size=outcome.batch_size,
            timing=convert.timing_to(outcome, inference.prepared),
            request_id=request.request_id,
            task=replica.manifest_pack.manifest.task,
            tiles=inference.tiles,
        )
        if found.probabilities is not None:
            top = response.classification_to(
                found.probabilities,
                replica.class_names,
                output_options.top_k,
                output_options.all_probabilities,
            )
            result.classification.CopyFrom(top)
        return worker_pb2.InferResponse(
            result=result,
            load=convert.load_to(self._engine),
            ledger_used_bytes=self._swapper.ledger.used_bytes,
        )

    def _ledger(self) -> types_pb2.Ledger:
        return convert.ledger_to(
            self._swapper.ledger,
            measured_bytes=self._backend.memory().used_bytes,
            assignable_bytes=self._replicas.assignable_bytes,
            host_bytes=self._swapper.host_bytes,
            foreign_bytes=self._device_monitor.foreign_bytes,
            drift_bytes=self._device_monitor.drift_bytes,
        )

    def _note(self, request: worker_pb2.InferRequest, outcome: str, seconds: float) -> None:
        """A line of a request that was not answered, joined with the control plane's by its id; of
        one that was, the control plane's says all.
        """
        say = log.debug if outcome == "OK" else log.info
        say(
            "infer",
            request_id=request.request_id,
            model=convert.key_of(request.version),
            outcome=outcome,
            total_ms=round(seconds * 1000, 3),
            ledger_used_bytes=self._swapper.ledger.used_bytes,
        )

"""The life of one Infer request: admission, options, inference, accounting, response, log line.

Requests reach it from the servicer and from I/O processes. It owns the set of open requests, so
it is also what a drain waits for and what a hung device is given up on.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from worker.backends.base import Backend
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BULK, SUSPECT
from worker.engine.engine import Engine
from worker.engine.request import Request
from worker.postprocess.postprocessor import Postprocessor
from worker.preprocess.prepared import ImageSource
from worker.process.flight_recorder import FlightRecorder
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from worker.service import convert, options, response
from worker.service.identity import Identity
from worker.service.inference import infer
from yolopool.errors import DeadlineExceeded, Draining, QueueFull, YolopoolError
from yolopool.v1 import fleet_pb2, worker_pb2
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()
# For a caller that set no deadline.
DEFAULT_DEADLINE_S = 30.0
_POLL_S = 0.02
MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0


class InferHandler:
    """All methods run on the event loop. `state` is what this worker reports of itself; while it
    is DRAINING, new requests are refused. `clock` is the engine's.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        replicas: ReplicaTable,
        swapper: Swapper,
        engine: Engine,
        postprocessor: Postprocessor,
        backend: Backend,
        recorder: FlightRecorder,
        clock: Callable[[], float],
    ) -> None:
        self.state = fleet_pb2.WORKER_STATE_STARTING
        self._identity = identity
        self._replicas = replicas
        self._swapper = swapper
        self._engine = engine
        self._postprocessor = postprocessor
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._open: set[asyncio.Task[Any]] = set()
        # Once set, every request fails with it.
        self._given_up: YolopoolError | None = None
        self._suspect = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """The number of requests that are not answered yet."""
        return len(self._open)

    async def infer(
        self, request: worker_pb2.InferRequest, remaining_s: float | None, image: ImageSource
    ) -> worker_pb2.InferResponse:
        """Answers one request, whose pixels `image` prepares once the request is admitted.

        `remaining_s` is the time to the caller's deadline; None if there is none.
        """
        began, outcome = self._clock(), "OK"
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._open.add(task)
        try:
            deadline = began + (DEFAULT_DEADLINE_S if remaining_s is None else remaining_s)
            return await self._admit(request, deadline, image)
        except YolopoolError as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            if self._given_up is not None:
                outcome = self._given_up.reason
                raise self._given_up from None
            outcome = "CANCELLED"
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            self._open.discard(task)
            took_s = self._clock() - began
            # The log line is written after the response is sent.
            task.get_loop().call_soon(self._log, request, outcome, took_s)

    async def drain(self, limit_s: float) -> int:
        """Refuses new work and waits for open requests; returns how many are left at the limit."""
        self.state = fleet_pb2.WORKER_STATE_DRAINING
        self._replicas.drain()
        until = self._clock() + limit_s
        while self.in_flight and self._clock() < until:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_S)
        return self.in_flight

    def give_up(self, error: YolopoolError) -> int:
        """Fails all open requests, and all later ones, with `error`; returns how many are open."""
        self._given_up = error
        given_up = len(self._open)
        for task in self._open:
            task.cancel()
        return given_up

    async def _admit(
        self, request: worker_pb2.InferRequest, deadline: float, image: ImageSource
    ) -> worker_pb2.InferResponse:
        if self._given_up is not None:
            raise self._given_up
        if self.state == fleet_pb2.WORKER_STATE_DRAINING:
            raise Draining("this worker is ending: ask another")
        if not request.suspect:
            return await self._run(request, deadline, image)
        # One suspect at a time: if the process dies, the one in flight is to blame.
        async with self._suspect:
            return await self._run(request, deadline, image)

    async def _run(
        self, request: worker_pb2.InferRequest, deadline: float, image: ImageSource
    ) -> worker_pb2.InferResponse:
        key = convert.key_of(request.version)
        with self._replicas.ticket(key) as replica, self._recorder.recording(request.request_id):
            # No other request has this priority, so a suspect goes first and shares no batch.
            priority = SUSPECT if request.suspect else convert.priority_of(request)
            began, tier = self._clock(), replica.state
            batching, tenant = replica.batching_at(began), request.tenant
            weight = weight_of(request)
            try:
                # Admission comes before any work: under a flood most requests are refused.
                place = self._engine.reserve(
                    AdmissionRequest(
                        replica.key,
                        priority,
                        deadline,
                        self._clock(),
                        batching,
                        tenant=tenant,
                        weight=weight,
                    )
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
                        Request(
                            replica.key, nms, priority, deadline, batching, place, tenant, weight
                        ),
                        image,
                        convert.spec_of(replica, output_options),
                        output_options,
                        self._clock,
                    )
                finally:
                    self._engine.free(place)
            except (QueueFull, DeadlineExceeded):
                replica.usage = replica.usage.refused(self._clock())
                raise
            replica.usage = replica.usage.answered(
                self._clock(), inference.outcome.queue_s, inference.device_s
            )
            result = response.detect_response(
                request, replica, self._backend, self._identity(), inference, output_options
            )
            if tier is ReplicaState.HOT and priority < BULK and not inference.tiles:
                replica.took(
                    convert.took_of(inference.outcome, self._clock() - began), self._clock()
                )
            found = bool(result.detections) or result.HasField("classification")
            replica.sight = replica.sight.answered(found)
            return worker_pb2.InferResponse(
                result=result,
                load=convert.load_to(self._engine),
                ledger_used_bytes=self._swapper.ledger.used_bytes,
                device_ms=inference.device_s * 1000,
                facts=response.pass_facts(inference, tier),
            )

    def _log(self, request: worker_pb2.InferRequest, outcome: str, took_s: float) -> None:
        """Logs a request that failed. The control plane logs those that succeeded; the request id
        joins the two.
        """
        write = log.debug if outcome == "OK" else log.info
        write(
            "infer",
            request_id=request.request_id,
            model=convert.key_of(request.version),
            outcome=outcome,
            total_ms=round(took_s * 1000, 3),
            ledger_used_bytes=self._swapper.ledger.used_bytes,
        )


def weight_of(request: worker_pb2.InferRequest) -> float:
    """The weight of a request's tenant; what is no weight counts as 1."""
    return request.weight if MIN_WEIGHT <= request.weight <= MAX_WEIGHT else 1.0

"""The path of one Detect: resolve the model, check the quarantine, let a DetectCall get the answer,
and account for the outcome.
"""

import asyncio
import uuid

from control_plane.alerts.model_counts import TIERS, Answer, ModelCounts
from control_plane.caller import Origin, Trace
from control_plane.convert.validation import check_sticky_key
from control_plane.convert.versions import drift_out, key_out
from control_plane.routing import request_log
from control_plane.routing.beside import BesideRuns
from control_plane.routing.detect_call import DetectCall, DetectContext
from control_plane.routing.families.chooser import FamilyChooser
from control_plane.routing.request_log import RequestLog, RequestRecord
from control_plane.routing.request_traces import RequestHistory
from control_plane.routing.tracing.otlp import Otlp
from control_plane.routing.tracing.spans import spans_of
from control_plane.statistics.request_rates import RequestRates
from control_plane.types.rollout.alias import Alias, point_for
from yolopool.errors import DeadlineUnmeetable, QueueFull, YolopoolError
from yolopool.names import ModelRef
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2

# OpenMetrics has 128 characters for the labels of an exemplar.
MAX_EXEMPLAR_CHARS = 100
_TIERS = {
    types_pb2.REPLICA_STATE_HOT: TIERS.index("device"),
    types_pb2.REPLICA_STATE_WARM: TIERS.index("host"),
}


class Router:
    """Holds no request: one call of `detect` is one request."""

    def __init__(
        self,
        context: DetectContext,
        history: RequestHistory,
        requests: RequestLog,
        rates: RequestRates,
        otlp: Otlp | None,
        beside: BesideRuns,
        families: FamilyChooser,
        counts: ModelCounts,
    ) -> None:
        self._context = context
        self._beside = beside
        self._view = context.view
        self._quarantine = context.quarantine
        self._metrics = context.metrics
        self._clock = context.clock
        self._history = history
        self._requests = requests
        self._rates = rates
        self._otlp = otlp
        self._families = families
        self._counts = counts

    async def detect(
        self,
        request: detection_pb2.DetectRequest,
        ref: ModelRef,
        body: worker_pb2.InferRequest,
        origin: Origin,
        deadline_s: float,
        input_bytes: int = 0,
    ) -> detection_pb2.DetectResponse:
        """Answers a validated request; `body` has its image, of so many bytes. deadline_s:
        monotonic.

        Counts and logs every outcome, errors and callers who left included.
        """
        arrived = self._clock.monotonic()
        request_id = request.request_id or uuid.uuid4().hex
        record = RequestRecord(
            request_id,
            origin,
            request.model,
            arrived,
            deadline_s - arrived,
            input_bytes,
            self._begun(origin),
        )
        body.request_id = request_id
        self._metrics.in_flight.inc()
        sticky_key = ""
        try:
            if ref.alias is not None:
                sticky_key = check_sticky_key(request.sticky_key)
            answer = await self._answer(ref, sticky_key, record, body, deadline_s)
        except YolopoolError as error:
            error.details["request_id"] = request_id  # so that the caller can ask for it
            self._failed(record, error.reason, error.message)
            if ref.alias is not None:
                had_s = deadline_s - arrived
                self._beside.failed(record, body, error.reason, had_s, is_sticky=bool(sticky_key))
            raise
        except asyncio.CancelledError:
            self._failed(record, "CANCELLED", "the caller left, or its deadline passed")
            raise
        except Exception as error:
            self._failed(record, "INTERNAL", type(error).__name__)
            raise
        finally:
            self._metrics.in_flight.dec()
        await self._quarantine.answered(body)
        self._succeeded(record, answer)
        if ref.alias is not None:
            self._beside.answered(record, body, answer, is_sticky=bool(sticky_key))
        return answer

    async def _answer(
        self,
        ref: ModelRef,
        sticky_key: str,
        record: RequestRecord,
        body: worker_pb2.InferRequest,
        deadline_s: float,
    ) -> detection_pb2.DetectResponse:
        point = None
        if ref.alias is not None:
            family = self._view.catalogue.family(ref)
            if family is not None:
                return await self._of_family(family, sticky_key, record, body, deadline_s)
            point = point_for(ref, sticky_key, self._context.rng.random)
        key = self._view.catalogue.ready(ref, point).key
        record.key, record.ref = key, ref
        body.version.CopyFrom(key_out(key))
        await self._quarantine.check(body)
        return await DetectCall(self._context, record, key, body, deadline_s).run()

    async def _of_family(
        self,
        family: Alias,
        sticky_key: str,
        record: RequestRecord,
        body: worker_pb2.InferRequest,
        deadline_s: float,
    ) -> detection_pb2.DetectResponse:
        """The answer of the member that is chosen; where workers have no time or no place for it,
        that of the next smaller one.
        """
        choice = self._families.choose(family, deadline_s, record.origin.principal.grants)
        while True:
            try:
                answer = await self._answer(choice.ref, sticky_key, record, body, deadline_s)
            except (DeadlineUnmeetable, QueueFull) as error:
                smaller = self._families.smaller(choice)
                if smaller is None:
                    raise
                record.retried.append(f"{record.key}: {error.reason}")
                choice = smaller
            else:
                self._families.answered(choice, answer, record.load_wait_s)
                return answer

    def refused(
        self,
        request: detection_pb2.DetectRequest,
        origin: Origin,
        error: YolopoolError,
    ) -> None:
        """Counts and logs a request that failed validation."""
        request_id = request.request_id[:128] or uuid.uuid4().hex
        error.details["request_id"] = request_id
        arrived = self._clock.monotonic()
        record = RequestRecord(
            request_id, origin, request.model[:200], arrived, trace=self._begun(origin)
        )
        self._failed(record, error.reason, error.message)

    def _begun(self, origin: Origin) -> Trace | None:
        return origin.trace if self._otlp is None else self._otlp.begun(origin)

    def _failed(self, record: RequestRecord, outcome: str, message: str) -> None:
        self._metrics.request_ended(outcome)
        if record.key is not None:
            self._counts.ended(record.key, outcome, record.hit)
        total_ms = (self._clock.monotonic() - record.arrived_s) * 1000
        now = self._clock.unix()
        if record.key is not None:
            self._rates.failed(record.key, record.hit, self._clock.monotonic())
        self._requests.note(record, outcome, total_ms, message=message)
        if self._otlp is not None and record.trace is not None and record.trace.is_recorded:
            spans = spans_of(record, outcome, now, total_ms)
            self._otlp.note(record.trace, record.origin.trace, spans, is_error=True)
        self._history.add(request_log.trace(record, outcome, total_ms, now, message=message))

    def _succeeded(self, record: RequestRecord, answer: detection_pb2.DetectResponse) -> None:
        """Adds to the worker's answer what only the control plane knows."""
        total_s = self._clock.monotonic() - record.arrived_s
        timing = answer.timing
        timing.total_ms = total_s * 1000
        timing.load_wait_ms = record.load_wait_s * 1000
        timing.route_ms = (total_s - record.load_wait_s - record.call_s) * 1000
        answer.request_id = record.request_id
        answer.worker = record.worker
        self._add_drift(record, answer)
        now = self._clock.unix()
        counted = counted_of(record, answer, total_s, now)
        self._metrics.request_answered(counted)
        if record.key is not None:
            self._counts.ended(record.key, "OK", record.hit, counted)
        if record.key is not None:
            self._rates.answered(
                record.key,
                record.hit,
                timing.total_ms,
                timing.queue_ms,
                timing.inference_ms,
                answer.batch_size,
                record.arrived_s + total_s,
            )
        self._requests.note(record, "OK", timing.total_ms, answer)
        self._history.add(request_log.trace(record, "OK", timing.total_ms, now, answer))
        if self._otlp is not None and record.trace is not None and record.trace.is_recorded:
            spans = spans_of(record, "OK", now, timing.total_ms, answer)
            self._otlp.note(record.trace, record.origin.trace, spans, is_error=False)

    def _add_drift(self, record: RequestRecord, answer: detection_pb2.DetectResponse) -> None:
        version = self._view.desired.versions.get(record.key) if record.key is not None else None
        # A build that is asked for by name answers without a drift: its row shows it.
        if version is None or version.given.build_of is not None or not version.given.served:
            return
        variant = answer.variant
        served = version.given.served.get(variant.device_kind)
        # A replica loaded before the build was changed still answers with the earlier one.
        if served is None or served.variant != f"{variant.backend}/{variant.precision}":
            return
        drift = served.drift_on(variant.compute_class)
        if drift is not None:
            answer.drift.CopyFrom(drift_out(drift))


def counted_of(
    record: RequestRecord, answer: detection_pb2.DetectResponse, total_s: float, now: float
) -> Answer:
    """What metrics count of an answer. now: Unix seconds."""
    timing, load_wait_s = answer.timing, record.load_wait_s
    stages_s = (
        total_s - load_wait_s - record.call_s,
        load_wait_s,
        timing.queue_ms / 1000,
        timing.decode_ms / 1000,
        timing.preprocess_ms / 1000,
        timing.inference_ms / 1000,
        timing.postprocess_ms / 1000,
    )
    results = len(answer.detections) or int(answer.HasField("classification"))
    exemplar = None
    if record.trace is not None:
        exemplar = ("trace_id", record.trace.trace_id)
    elif len(record.request_id) <= MAX_EXEMPLAR_CHARS:
        exemplar = ("request_id", record.request_id)
    tier = tier_of(record)
    return Answer(total_s, stages_s, answer.batch_size, results, tier, exemplar, now)


def tier_of(record: RequestRecord) -> int | None:
    """Where the version was when the request came; None: its worker does not say."""
    if not record.hit:
        return TIERS.index("store")
    return _TIERS.get(record.facts.found) if record.facts is not None else None

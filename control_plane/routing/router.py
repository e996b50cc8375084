"""The path of one Detect: resolve, choose, send, and once more elsewhere if nothing came of it.

No store and no disk: everything is looked up in the view.
"""

import asyncio
import uuid
from collections.abc import Collection
from random import Random

from control_plane.caller import Principal
from control_plane.clock import Clock
from control_plane.convert.versions import drift_out, key_out
from control_plane.metrics import Metrics
from control_plane.models.loading import Loader
from control_plane.routing import request_log
from control_plane.routing.attempts import Attempt, AttemptRunner
from control_plane.routing.balancer import Hold, Reject, Route, Send, choose, per_try_timeout_s
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.request_log import RequestRecord
from control_plane.routing.request_traces import RequestHistory
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from yolopool.errors import DeadlineExceeded, YolopoolError
from yolopool.names import ModelRef
from yolopool.v1 import detection_pb2, worker_pb2

# Refusals after which another worker may answer: nothing was run, or nobody will ever answer.
LOST = frozenset({"WORKER_SILENT", "DRAINING"})
# Likewise, of one that ended: perhaps by what this very request had it do.
ENDED = frozenset({"WORKER_LOST", "DEVICE_HUNG"})
# Likewise, of one who has too much to do: waiting would only move the queue here, so it is
# elsewhere at once, or the caller hears it.
BUSY = frozenset({"QUEUE_FULL", "DEADLINE_UNMEETABLE"})
# A model may be released between choice and call, again and again where memory is scarce.
MOST_STALE_CHOICES = 4


class Router:
    """Holds no request: one call of `detect` is one request."""

    def __init__(
        self,
        view: View,
        attempts: AttemptRunner,
        loads: Loader,
        quarantine: Quarantine,
        metrics: Metrics,
        traces: RequestHistory,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._view = view
        self._attempts = attempts
        self._loads = loads
        self._quarantine = quarantine
        self._metrics = metrics
        self._traces = traces
        self._clock = clock
        self._rng = rng

    async def detect(
        self,
        request: detection_pb2.DetectRequest,
        ref: ModelRef,
        body: worker_pb2.InferRequest,
        principal: Principal,
        deadline_s: float,
    ) -> detection_pb2.DetectResponse:
        """Answers a request that was checked; `body` has its image. deadline_s: monotonic.

        Every outcome is counted and logged here, errors and callers who left included.
        """
        arrived = self._clock.monotonic()
        request_id = request.request_id or uuid.uuid4().hex
        record = RequestRecord(request_id, principal, request.model, arrived)
        body.request_id = request_id
        self._metrics.in_flight.inc()
        try:
            record.key = self._view.catalogue.ready(ref).key
            body.version.CopyFrom(key_out(record.key))
            await self._quarantine.check(body)
            answer = await self._answer(record, record.key, body, deadline_s)
        except YolopoolError as error:
            error.details["request_id"] = request_id  # to ask for it by
            self._ended(record, error.reason, error.message)
            raise
        except asyncio.CancelledError:
            self._ended(record, "CANCELLED", "the caller left, or its deadline passed")
            raise
        except Exception as error:
            self._ended(record, "INTERNAL", type(error).__name__)
            raise
        finally:
            self._metrics.in_flight.dec()
        await self._quarantine.answered(body)
        self._fill_in(record, answer)
        return answer

    def refused(
        self, request: detection_pb2.DetectRequest, principal: Principal, error: YolopoolError
    ) -> None:
        """Counts and logs a request that did not pass the door."""
        request_id = request.request_id[:128] or uuid.uuid4().hex
        error.details["request_id"] = request_id
        record = RequestRecord(request_id, principal, request.model[:200], self._clock.monotonic())
        self._ended(record, error.reason, error.message)

    async def _answer(
        self,
        record: RequestRecord,
        key: VersionKey,
        body: worker_pb2.InferRequest,
        deadline_s: float,
    ) -> detection_pb2.DetectResponse:
        excluded: set[str] = set()
        first = True
        while True:
            try:
                worker = await self._worker(record, key, excluded, deadline_s, first)
            except YolopoolError as error:
                # No other holds it and none will in time: the first refusal is the reason.
                raise self._final(record, error) from error
            first = False
            try:
                return await self._send(record, worker, key, body, deadline_s, excluded)
            except YolopoolError as error:
                if not await self._may_retry(
                    record, worker, key, body, error, excluded, deadline_s
                ):
                    raise
                if error.reason != "NOT_ASSIGNED":
                    excluded.add(worker.incarnation)
                record.retried.append(f"{worker.id}: {error.reason}")
                self._metrics.retries.labels(reason=error.reason).inc()

    async def _may_retry(
        self,
        record: RequestRecord,
        worker: WorkerInfo,
        key: VersionKey,
        body: worker_pb2.InferRequest,
        error: YolopoolError,
        excluded: set[str],
        deadline_s: float,
    ) -> bool:
        if error.reason in ENDED:
            record.lost += 1
            lost, incarnation = record.lost, worker.incarnation
            return await self._quarantine.may_go_on(body, incarnation, lost, deadline_s)
        if error.reason == "NOT_ASSIGNED":
            if error.details.get("forced"):
                return False  # to load it anew for those it was taken from would undo the unload
            self._view.drop_replica(worker.id, key)
            return len(record.retried) < MOST_STALE_CHOICES
        if excluded:
            return False
        if error.reason in BUSY:
            return self._has_other(key, worker)
        return error.reason in LOST

    def _final(self, record: RequestRecord, error: YolopoolError) -> YolopoolError:
        if record.retried and isinstance(error, DeadlineExceeded):
            tried = "; ".join(record.retried)
            return DeadlineExceeded(f"{error.message} (before: {tried})", details=error.details)
        return error

    async def _worker(
        self,
        record: RequestRecord,
        key: VersionKey,
        excluded: set[str],
        deadline_s: float,
        count: bool,
    ) -> WorkerInfo:
        """A worker that holds the version; on a miss, once one does."""
        route = self._route(key, excluded)
        if count:
            record.hit = isinstance(route, Send)
            self._metrics.cache.labels(result="hit" if record.hit else "miss").inc()
        if isinstance(route, Send):
            return route.worker
        if isinstance(route, Reject):
            raise route.error
        began = self._clock.monotonic()
        try:
            return await self._loads.ensure_loaded(
                key, lambda: self._settled(key, excluded), deadline_s
            )
        finally:
            record.load_wait_s += self._clock.monotonic() - began

    def _route(self, key: VersionKey, excluded: Collection[str]) -> Route:
        """A worker that is not under suspicion, or else one that is: better than none."""
        now = self._clock.monotonic()
        passed_over = self._view.breaker.open_for(now)
        if passed_over:
            route = choose(self._view, key, now, self._rng, {*excluded, *passed_over})
            if isinstance(route, Send):
                return route
        return choose(self._view, key, now, self._rng, excluded)

    def _has_other(self, key: VersionKey, worker: WorkerInfo) -> bool:
        """Whether another, of whom nothing bad is known, could answer now."""
        now = self._clock.monotonic()
        others = {worker.incarnation, *self._view.breaker.open_for(now)}
        return isinstance(choose(self._view, key, now, self._rng, others), Send)

    def _settled(self, key: VersionKey, excluded: set[str]) -> WorkerInfo | None:
        route = self._route(key, excluded)
        if isinstance(route, Reject):
            raise route.error
        return None if isinstance(route, Hold) else route.worker

    async def _send(
        self,
        record: RequestRecord,
        worker: WorkerInfo,
        key: VersionKey,
        body: worker_pb2.InferRequest,
        deadline_s: float,
        excluded: set[str],
    ) -> detection_pb2.DetectResponse:
        began = self._clock.monotonic()
        if began >= deadline_s:
            raise DeadlineExceeded(f"time ran out before {key} could be run: allow more")
        record.worker = worker.id
        limit_s = None
        if not excluded:  # the second one is waited for: there is no third
            size = len(body.encoded) or len(body.raw.data)
            limit_s = per_try_timeout_s(self._view, worker, key, deadline_s - began, size)
        attempt = Attempt(worker, key, deadline_s, limit_s, lambda: self._has_other(key, worker))
        try:
            reply = await self._attempts.infer(attempt, body)
        finally:
            record.call_s += self._clock.monotonic() - began
        record.ledger_used_bytes = reply.ledger_used_bytes
        return reply.result

    # --- the end of a request -----------------------------------------------------------------

    def _ended(self, record: RequestRecord, outcome: str, message: str) -> None:
        self._metrics.request_ended(outcome)
        total_ms = (self._clock.monotonic() - record.arrived_s) * 1000
        now = self._clock.unix()
        request_log.write(record, outcome, total_ms, message=message)
        self._traces.add(request_log.trace(record, outcome, total_ms, now, message=message))

    def _tell_drift(self, record: RequestRecord, answer: detection_pb2.DetectResponse) -> None:
        version = self._view.desired.versions.get(record.key) if record.key is not None else None
        if version is None or not version.given.served:
            return
        variant = answer.variant
        served = version.given.served.get(variant.device_kind)
        # A replica that was not loaded anew yet is of another.
        if served is None or served.variant != f"{variant.backend}/{variant.precision}":
            return
        drift = served.drift_on(variant.compute_class)
        if drift is not None:
            answer.drift.CopyFrom(drift_out(drift))

    def _fill_in(self, record: RequestRecord, answer: detection_pb2.DetectResponse) -> None:
        total_s = self._clock.monotonic() - record.arrived_s
        timing = answer.timing
        timing.total_ms = total_s * 1000
        timing.load_wait_ms = record.load_wait_s * 1000
        timing.route_ms = (total_s - record.load_wait_s - record.call_s) * 1000
        answer.request_id = record.request_id
        answer.worker = record.worker
        self._tell_drift(record, answer)
        self._metrics.request_ended("OK")
        self._metrics.request_answered(answer)
        request_log.write(record, "OK", timing.total_ms, answer)
        now = self._clock.unix()
        self._traces.add(request_log.trace(record, "OK", timing.total_ms, now, answer))

"""One Detect on its way: find a worker, send the request, and retry on another worker.

No store and no disk: every look-up is in the view.
"""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from control_plane.metrics.exposition import Metrics
from control_plane.models.loading import Loader
from control_plane.routing.attempts import Attempt, AttemptRunner
from control_plane.routing.balancer import Hold, Reject, Route, Send, choose, per_try_timeout_s
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.request_log import RequestRecord
from control_plane.tenants.admission import Admission
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from yolopool.errors import DeadlineExceeded, YolopoolError
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2, worker_pb2

# Another worker may answer: this one ran nothing, or will never answer.
LOST = frozenset({"WORKER_SILENT", "DRAINING"})
# Likewise, but the worker's process ended, perhaps because of this very request.
ENDED = frozenset({"WORKER_LOST", "DEVICE_HUNG", "DEVICE_FAILED"})
# The worker has too much to do. Waiting would only move its queue here: the request goes to
# another worker at once, or the caller gets the error.
BUSY = frozenset({"QUEUE_FULL", "DEADLINE_UNMEETABLE"})
# Where memory is scarce a version may be released between choice and call, again and again.
MAX_STALE_CHOICES = 4


@dataclass(frozen=True, slots=True)
class DetectContext:
    """What all calls share."""

    view: View
    attempts: AttemptRunner
    loader: Loader
    quarantine: Quarantine
    metrics: Metrics
    clock: Clock
    rng: Random
    admission: Admission


class DetectCall:
    """`run` it once. `body` is the message for the worker; deadline_s: monotonic."""

    __slots__ = ("_body", "_context", "_deadline_s", "_excluded", "_key", "_record")

    def __init__(
        self,
        context: DetectContext,
        record: RequestRecord,
        key: VersionKey,
        body: worker_pb2.InferRequest,
        deadline_s: float,
    ) -> None:
        self._context = context
        self._record = record
        self._key = key
        self._body = body
        self._deadline_s = deadline_s
        self._excluded: set[str] = set()  # incarnations that failed this request

    async def run(self) -> detection_pb2.DetectResponse:
        """The first answer of a worker. Raises why there is none."""
        worker = await self._first_worker()
        while True:
            try:
                return await self._send(worker)
            except YolopoolError as error:
                if not await self._may_retry(worker, error):
                    raise
                self._note_retry(worker, error)
            try:
                worker = await self._wait_for_worker(self._route())
            except DeadlineExceeded as error:
                # No other worker has the version in time: what the first ones said is the reason.
                tried = "; ".join(self._record.retried)
                raise DeadlineExceeded(
                    f"{error.message} (before: {tried})", details=error.details
                ) from error

    # --- which worker -------------------------------------------------------------------------

    async def _first_worker(self) -> WorkerInfo:
        route = self._route()
        hit = self._record.hit = isinstance(route, Send)
        self._context.metrics.looked_up(hit)
        return await self._wait_for_worker(route)

    async def _wait_for_worker(self, route: Route) -> WorkerInfo:
        """The worker of a route; on a miss, loads the version and waits for one that has it."""
        if isinstance(route, Send):
            return route.worker
        if isinstance(route, Reject):
            raise route.error
        clock = self._context.clock
        began = clock.monotonic()
        try:
            return await self._context.loader.ensure_loaded(
                self._key, self._worker_now, self._deadline_s
            )
        finally:
            self._record.load_wait_s += clock.monotonic() - began

    def _worker_now(self) -> WorkerInfo | None:
        route = self._route()
        if isinstance(route, Reject):
            raise route.error
        return None if isinstance(route, Hold) else route.worker

    def _route(self) -> Route:
        """A worker whose circuit breaker is closed; failing that, any: better than none."""
        view, now = self._context.view, self._context.clock.monotonic()
        tripped = view.breaker.open_for(now)
        if tripped:
            route = self._choose(now, {*self._excluded, *tripped})
            if isinstance(route, Send):
                return route
        return self._choose(now, self._excluded)

    def _has_other(self, worker: WorkerInfo) -> bool:
        """Whether another worker, with its circuit breaker closed, could answer now."""
        now = self._context.clock.monotonic()
        excluded = {worker.incarnation, *self._context.view.breaker.open_for(now)}
        return isinstance(self._choose(now, excluded), Send)

    def _choose(self, now: float, excluded: Collection[str]) -> Route:
        return choose(self._context.view, self._key, now, self._context.rng, excluded)

    # --- one attempt --------------------------------------------------------------------------

    async def _send(self, worker: WorkerInfo) -> detection_pb2.DetectResponse:
        context, record = self._context, self._record
        began = context.clock.monotonic()
        if began >= self._deadline_s:
            raise DeadlineExceeded(f"time ran out before {self._key} could be run: allow more")
        record.worker = worker.id
        attempt = Attempt(
            worker,
            self._key,
            self._deadline_s,
            self._timeout_s(worker, self._deadline_s - began),
            lambda: self._has_other(worker),
            record.trace,
        )
        try:
            reply = await context.attempts.infer(attempt, self._body)
        finally:
            record.call_s += context.clock.monotonic() - began
        record.ledger_used_bytes = reply.ledger_used_bytes
        # Workers of an earlier release tell none.
        record.facts = reply.facts if reply.HasField("facts") else None
        record.stand = worker.figures.device if worker.figures is not None else None
        context.admission.used_device(record.origin.principal.tenant, reply.device_ms / 1000)
        return reply.result

    def _timeout_s(self, worker: WorkerInfo, left_s: float) -> float | None:
        """Only the first attempt has a limit of its own: after the second there is no third."""
        if self._excluded:
            return None
        size_bytes = self._record.input_bytes
        return per_try_timeout_s(self._context.view, worker, self._key, left_s, size_bytes)

    async def _may_retry(self, worker: WorkerInfo, error: YolopoolError) -> bool:
        record = self._record
        if error.reason in ENDED:
            record.lost += 1
            return await self._context.quarantine.may_go_on(
                self._body, worker.incarnation, record.lost, self._deadline_s
            )
        if error.reason == "NOT_ASSIGNED":
            if error.details.get("forced"):
                return False  # an admin unloaded it by force: loading it again would undo that
            self._context.view.drop_replica(worker.id, self._key)
            return len(record.retried) < MAX_STALE_CHOICES
        if self._excluded:
            return False
        if error.reason in BUSY:
            return self._has_other(worker)
        return error.reason in LOST

    def _note_retry(self, worker: WorkerInfo, error: YolopoolError) -> None:
        if error.reason != "NOT_ASSIGNED":
            self._excluded.add(worker.incarnation)
        self._record.retried.append(f"{worker.id}: {error.reason}")
        self._context.metrics.retried(error.reason)

"""ExplainService: what a load would do, why a version is where it is, how a request ended.

It only reads, and never waits.
"""

from collections.abc import Callable
from functools import partial

from control_plane.caller import CallContext, Principal, principal_of
from control_plane.convert.validation import check_placement, check_replicas
from control_plane.convert.versions import key_out, placement_in, rates_out
from control_plane.identity.access import name_of
from control_plane.rollout.switch_controller import explained, waits_for
from control_plane.routing.request_traces import RequestHistory, RequestTrace
from control_plane.scheduling import explanation
from control_plane.scheduling.explanation import Feasibility
from control_plane.types.access.api_key import Role, is_granted
from control_plane.types.command import Assign, Blocked, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.rollout.alias import naming
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import explain_pb2, explain_pb2_grpc, types_pb2


class ExplainService(explain_pb2_grpc.ExplainServiceServicer):
    """`snapshot` returns what the next plan will look at, with the commands in progress applied."""

    def __init__(
        self, view: View, snapshot: Callable[[], Snapshot], history: RequestHistory, clock: Clock
    ) -> None:
        self._view = view
        self._snapshot = snapshot
        self._history = history
        self._clock = clock

    async def PlanLoad(
        self, request: explain_pb2.PlanLoadRequest, context: CallContext
    ) -> explain_pb2.PlanLoadResponse:
        replicas = check_replicas(request.replicas)
        version = self._view.catalogue.ready(parse_ref(request.model))
        placement = None
        if request.HasField("placement"):
            placement = placement_in(check_placement(request.placement))
        want = Want(version.key, replicas, request.pin, WantSource.ADMIN, self._clock.unix())
        now = self._clock.monotonic()
        waiting = self._view.waits.keys()
        commands = explanation.plan_for(self._snapshot(), want, placement, waiting, now)
        return explain_pb2.PlanLoadResponse(steps=[step_out(command) for command in commands])

    async def ExplainModel(
        self, request: explain_pb2.ExplainModelRequest, context: CallContext
    ) -> explain_pb2.ExplainModelResponse:
        version = self._view.catalogue.find(parse_ref(request.model))
        snapshot, key = self._snapshot(), version.key
        now = self._clock.monotonic()
        rates = self._view.arrivals(key)
        verdicts = explanation.verdicts(snapshot, version, now)
        want, blocked = snapshot.desired.want(key), self._view.waits.get(key)
        return explain_pb2.ExplainModelResponse(
            version=key_out(key),
            wants=explanation.wants_in_words(version, want, snapshot.unix_s),
            rates=rates_out(rates),
            rate=rates.estimate,
            value_per_gib=explanation.value_per_gib(snapshot, version, rates.estimate),
            workers=[verdict_out(verdict) for verdict in verdicts],
            waiting_reason=f"{blocked.reason}: {blocked.why}" if blocked is not None else "",
            aliases=self._aliases(key),
        )

    def _aliases(self, key: VersionKey) -> list[str]:
        aliases, now = self._view.desired.aliases, self._clock.unix()
        return [
            explained(aliases[name], key.number, waits_for(self._view, aliases[name], now), now)
            for name in naming(aliases, key)
        ]

    async def ExplainRequest(
        self, request: explain_pb2.ExplainRequestRequest, context: CallContext
    ) -> explain_pb2.ExplainRequestResponse:
        caller = principal_of(context)
        traces = self._history.find(request.request_id, partial(_is_shown, caller))
        return explain_pb2.ExplainRequestResponse(requests=[trace_out(trace) for trace in traces])


def _is_shown(caller: Principal, trace: RequestTrace) -> bool:
    """Whether a caller may know of a request: its own, or as an operator that of its models."""
    is_own = trace.principal == caller.name
    may_look = caller.role.allows(Role.OPERATE) or is_own
    return may_look and is_granted(caller.grants, name_of(trace.model))


def step_out(command: Assign | Release | Blocked) -> explain_pb2.PlannedStep:
    step = explain_pb2.PlannedStep(version=key_out(command.key), why=command.why, line=str(command))
    match command:
        case Assign():
            step.action, step.worker = explain_pb2.PlannedStep.ASSIGN, command.worker
        case Release():
            step.action, step.worker = explain_pb2.PlannedStep.RELEASE, command.worker
            step.reason = command.reason
        case Blocked():
            step.action, step.reason = explain_pb2.PlannedStep.WAIT, command.reason
    return step


def verdict_out(verdict: Feasibility) -> explain_pb2.WorkerVerdict:
    state = types_pb2.REPLICA_STATE_UNSPECIFIED
    if verdict.replica is not None:
        state = types_pb2.ReplicaState.Value(f"REPLICA_STATE_{verdict.replica.state}")
    return explain_pb2.WorkerVerdict(
        worker=verdict.worker.id,
        device=verdict.worker.device,
        state=state,
        feasible=verdict.feasible,
        reason=verdict.reason,
        why=verdict.why,
        weights_bytes=verdict.weights_bytes,
        free_bytes=verdict.free_bytes,
        load_ms=verdict.load_ms,
    )


def trace_out(trace: RequestTrace) -> explain_pb2.RequestTrace:
    return explain_pb2.RequestTrace(
        request_id=trace.request_id,
        unix_s=trace.unix_s,
        principal=trace.principal,
        model=trace.model,
        version=key_out(trace.version) if trace.version is not None else None,
        outcome=trace.outcome,
        message=trace.message,
        retried=trace.retried,
        worker=trace.worker,
        hit=trace.hit,
        total_ms=trace.total_ms,
        load_wait_ms=trace.load_wait_ms,
        queue_ms=trace.queue_ms,
        inference_ms=trace.inference_ms,
        batch_size=trace.batch_size,
    )

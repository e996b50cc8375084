"""What the pool says of why it is as it is, as typed records: events, plans, verdicts, traces.

Frozen and plain: each reads itself from its message, and `dataclasses.asdict` gives the JSON.
"""

from dataclasses import dataclass

from yolopool.v1 import events_pb2, explain_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` as ASSIGNED or WORKER_LOST; `model` is name@version; empty: it does not apply.

    `id` grows: go on with it after a break. `image` is the SHA-256 of one, in hex.
    """

    id: str
    unix_s: float
    kind: str
    worker: str
    model: str
    reason: str
    message: str
    control_plane: str
    image: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """`action` is ASSIGN, RELEASE or WAIT (can't be done now); `line` says it all to people."""

    action: str
    model: str
    worker: str
    reason: str
    why: str
    line: str


@dataclass(frozen=True, slots=True)
class WorkerVerdict:
    """What a worker is to a version; `state` empty: it is not there. `feasible`: it could be
    loaded there now, or is; `why` says why or why not.
    """

    worker: str
    device: str
    state: str
    feasible: bool
    reason: str
    why: str
    weights_bytes: int
    free_bytes: int
    load_ms: float


@dataclass(frozen=True, slots=True)
class ModelExplanation:
    """`rate_fast`, `rate_middle`, `rate_slow`: requests a second over 30 s, 5 min and 1 h; plans go
    by `rate`. `value_per_gib`: cold-start seconds that a loaded replica saves a second, per GiB.
    """

    model: str
    wants: tuple[str, ...]
    rate_fast: float
    rate_middle: float
    rate_slow: float
    rate: float
    value_per_gib: float
    workers: tuple[WorkerVerdict, ...]
    waiting_reason: str


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A request that ended; `asked` is the model as it was asked for, `model` what that meant.

    `hit`: a worker had the model when the request came.
    """

    request_id: str
    unix_s: float
    principal: str
    asked: str
    model: str
    outcome: str
    message: str
    retried: tuple[str, ...]
    worker: str
    hit: bool
    total_ms: float
    load_wait_ms: float
    queue_ms: float
    inference_ms: float
    batch_size: int


def _key(version: types_pb2.VersionKey) -> str:
    return f"{version.model}@{version.version}" if version.model else ""


def event_of(message: events_pb2.Event) -> Event:
    known = message.kind in events_pb2.EventKind.values()
    kind = events_pb2.EventKind.Name(message.kind) if known else "UNSPECIFIED"
    return Event(
        id=message.id,
        unix_s=message.unix_s,
        kind=kind.removeprefix("EVENT_KIND_"),
        worker=message.worker,
        model=_key(message.version),
        reason=message.reason,
        message=message.message,
        control_plane=message.control_plane,
        image=message.image,
    )


def step_of(message: explain_pb2.PlannedStep) -> PlannedStep:
    return PlannedStep(
        action=explain_pb2.PlannedStep.Action.Name(message.action),
        model=_key(message.version),
        worker=message.worker,
        reason=message.reason,
        why=message.why,
        line=message.line,
    )


def verdict_of(message: explain_pb2.WorkerVerdict) -> WorkerVerdict:
    state = types_pb2.ReplicaState.Name(message.state).removeprefix("REPLICA_STATE_")
    return WorkerVerdict(
        worker=message.worker,
        device=message.device,
        state="" if state == "UNSPECIFIED" else state,
        feasible=message.feasible,
        reason=message.reason,
        why=message.why,
        weights_bytes=message.weights_bytes,
        free_bytes=message.free_bytes,
        load_ms=message.load_ms,
    )


def model_of(message: explain_pb2.ExplainModelResponse) -> ModelExplanation:
    return ModelExplanation(
        model=_key(message.version),
        wants=tuple(message.wants),
        rate_fast=message.rates.fast,
        rate_middle=message.rates.middle,
        rate_slow=message.rates.slow,
        rate=message.rate,
        value_per_gib=message.value_per_gib,
        workers=tuple(verdict_of(worker) for worker in message.workers),
        waiting_reason=message.waiting_reason,
    )


def trace_of(message: explain_pb2.RequestTrace) -> RequestTrace:
    return RequestTrace(
        request_id=message.request_id,
        unix_s=message.unix_s,
        principal=message.principal,
        asked=message.model,
        model=_key(message.version),
        outcome=message.outcome,
        message=message.message,
        retried=tuple(message.retried),
        worker=message.worker,
        hit=message.hit,
        total_ms=message.total_ms,
        load_wait_ms=message.load_wait_ms,
        queue_ms=message.queue_ms,
        inference_ms=message.inference_ms,
        batch_size=message.batch_size,
    )


def steps_of(message: explain_pb2.PlanLoadResponse) -> tuple[PlannedStep, ...]:
    return tuple(step_of(step) for step in message.steps)


def traces_of(message: explain_pb2.ExplainRequestResponse) -> tuple[RequestTrace, ...]:
    return tuple(trace_of(trace) for trace in message.requests)

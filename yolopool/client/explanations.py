"""Events, planned steps, explanations and request traces as frozen records for callers.

Each record has a function that reads it from its message; `dataclasses.asdict` gives its JSON.
"""

from dataclasses import dataclass

from yolopool.v1 import events_pb2, explain_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the pool; `kind` is ASSIGNED, WORKER_LOST, ...

    `id` grows, so that a reader can resume behind it. `model` is name@version; empty fields do not
    apply. `image` is the SHA-256 of the image concerned, in hex.
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
    """`action` is ASSIGN, RELEASE or WAIT (not possible now); `line` is the step in words."""

    action: str
    model: str
    worker: str
    reason: str
    why: str
    line: str


@dataclass(frozen=True, slots=True)
class WorkerVerdict:
    """Whether a worker has a version or could load it, and why.

    `state` empty: the version is not there. `feasible`: it is there, or could be loaded now.
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
    """Why a version is loaded where it is.

    `rate_fast`, `rate_middle` and `rate_slow` are requests a second over 30 s, 5 min and 1 h;
    placement uses `rate`. `value_per_gib` is how many cold-start seconds a loaded replica saves
    each second, per GiB of memory. `aliases`: a sentence for each alias that needs the version.
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
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A finished request. `asked` is the model as the caller named it, `model` the version it
    resolved to. `hit`: a worker had the model loaded when the request arrived.
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
        aliases=tuple(message.aliases),
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

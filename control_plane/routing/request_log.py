"""One log line for each request, whatever its outcome, and its trace for `explain`."""

from dataclasses import dataclass, field

import structlog

from control_plane.caller import Principal
from control_plane.routing.request_traces import RequestTrace
from control_plane.types.version import VersionKey
from yolopool.names import ModelRef
from yolopool.v1 import detection_pb2

log = structlog.get_logger()

MAX_TEXT_CHARS = 500


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request so far. `arrived_s`: monotonic. `ref`: what `key` was found by; of
    a family, the member's.
    """

    request_id: str
    principal: Principal
    model: str
    arrived_s: float
    key: VersionKey | None = None
    ref: ModelRef | None = None
    load_wait_s: float = 0.0
    call_s: float = 0.0
    retried: list[str] = field(default_factory=list)
    lost: int = 0  # workers that ended with it in flight
    ledger_used_bytes: int = 0
    worker: str = ""
    hit: bool = False  # whether a worker had the model when the request arrived
    trace_id: str = ""  # of the caller's distributed trace, if it named one


def write(
    record: RequestRecord,
    outcome: str,
    total_ms: float,
    answer: detection_pb2.DetectResponse | None = None,
    message: str = "",
) -> None:
    """`outcome`: OK or an error's reason; `message`: an error's message."""
    fields: dict[str, object] = {
        "request_id": record.request_id,
        "outcome": outcome,
        "model": record.key.model if record.key is not None else record.model,
        "version": record.key.number if record.key is not None else None,
        "worker": record.worker,
        "principal": record.principal.name,
        "total_ms": round(total_ms, 3),
        "load_wait_ms": round(record.load_wait_s * 1000, 3),
    }
    if record.trace_id:
        fields["trace_id"] = record.trace_id
    if record.retried:
        fields["retried"] = record.retried
    if answer is None:
        log.warning("request", message=message, **fields)
        return
    timing = answer.timing
    log.info(
        "request",
        **fields,
        route_ms=round(timing.route_ms, 3),
        queue_ms=round(timing.queue_ms, 3),
        decode_ms=round(timing.decode_ms, 3),
        preprocess_ms=round(timing.preprocess_ms, 3),
        inference_ms=round(timing.inference_ms, 3),
        postprocess_ms=round(timing.postprocess_ms, 3),
        batch_size=answer.batch_size,
        detections=len(answer.detections),
        ledger_used_bytes=record.ledger_used_bytes,
    )


def trace(
    record: RequestRecord,
    outcome: str,
    total_ms: float,
    now: float,
    answer: detection_pb2.DetectResponse | None = None,
    message: str = "",
) -> RequestTrace:
    """As `write`; now: Unix seconds. Long texts are cut, since ten thousand traces are kept."""
    timing = answer.timing if answer is not None else detection_pb2.Timing()
    return RequestTrace(
        request_id=record.request_id,
        unix_s=now - total_ms / 1000,
        principal=record.principal.name,
        model=record.model[:MAX_TEXT_CHARS],
        version=record.key,
        outcome=outcome,
        message=message[:MAX_TEXT_CHARS],
        retried=tuple(record.retried),
        worker=record.worker,
        hit=record.hit,
        total_ms=total_ms,
        load_wait_ms=record.load_wait_s * 1000,
        queue_ms=timing.queue_ms,
        inference_ms=timing.inference_ms,
        batch_size=answer.batch_size if answer is not None else 0,
    )

"""One request as spans of OpenTelemetry: the whole, and its stages in the order in which they ran.
Pure.

They are made when the request has ended, from the times in its answer, so that tracing costs a
request nothing while it runs. What is in no stage is a gap between them and the end.
"""

from dataclasses import dataclass
from typing import Any

from control_plane.routing.request_log import RequestRecord
from yolopool.masking import masked
from yolopool.v1 import detection_pb2

NAME = "yolopool.v1.DetectionService/Detect"
# The order in which a request passes them.
STAGES = (
    ("route", "route_ms"),
    ("load wait", "load_wait_ms"),
    ("decode", "decode_ms"),
    ("preprocess", "preprocess_ms"),
    ("queue", "queue_ms"),
    ("inference", "inference_ms"),
    ("postprocess", "postprocess_ms"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """Times: Unix seconds."""

    name: str
    began_s: float
    ended_s: float
    attributes: dict[str, Any]


def spans_of(
    record: RequestRecord,
    outcome: str,
    ended_s: float,
    total_ms: float,
    answer: detection_pb2.DetectResponse | None = None,
) -> tuple[Span, ...]:
    """The whole first. A stage that took no time has no span."""
    began_s = ended_s - total_ms / 1000
    spans = [Span(NAME, began_s, ended_s, _about(record, outcome, answer))]
    if answer is None:
        if record.load_wait_s:
            spans.append(Span("load wait", began_s, began_s + record.load_wait_s, {}))
        return tuple(spans)
    at_s = began_s
    for name, field in STAGES:
        took_s = getattr(answer.timing, field) / 1000
        if took_s > 0:
            spans.append(Span(name, at_s, at_s + took_s, {}))
            at_s += took_s
    return tuple(spans)


def _about(
    record: RequestRecord, outcome: str, answer: detection_pb2.DetectResponse | None
) -> dict[str, Any]:
    key, origin = record.key, record.origin
    about: dict[str, Any] = {
        "rpc.system.name": "grpc",
        "rpc.method": NAME,
        "yolopool.request_id": masked(record.request_id),
        "yolopool.outcome": outcome,
        "yolopool.model": key.model if key is not None else masked(record.model)[:200],
        "yolopool.door": origin.door,
        "yolopool.hit": record.hit,
        "yolopool.input_bytes": record.input_bytes,
    }
    if key is not None:
        about["yolopool.version"] = key.number
    if record.worker:
        about["yolopool.worker"] = record.worker
    if origin.principal.tenant:
        about["yolopool.tenant"] = origin.principal.tenant
    if record.retried:
        about["yolopool.retried"] = list(record.retried)
    if answer is not None:
        about["yolopool.device"] = answer.device
        about["yolopool.batch_size"] = answer.batch_size
        about["yolopool.detections"] = len(answer.detections)
    return about

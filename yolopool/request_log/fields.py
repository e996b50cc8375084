"""The fields of the request log: one JSON object a line, one line a request. Pure.

A field that is not known is absent, as those of a worker are where none answered.
"""

from dataclasses import dataclass
from typing import Any

# In every line of a control plane's log that is one of a request.
EVENT = "request"


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: string, integer, number, boolean or strings. `unit`: of a number; empty: it has none.
    `always`: it is in every line.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    always: bool = False


_TIMES = (
    Field("route_ms", "number", "ms", "in the control plane, beside the two below"),
    Field("load_wait_ms", "number", "ms", "waiting for the model to be loaded; 0 on a hit", True),
    Field("queue_ms", "number", "ms", "waiting in the worker's queue for the device"),
    Field("decode_ms", "number", "ms", "from the file to pixels"),
    Field(
        "preprocess_ms",
        "number",
        "ms",
        "letterbox and the way to the device, of which `transfer_ms` is a part",
    ),
    Field("transfer_ms", "number", "ms", "images to the device; on CUDA by its own events"),
    Field("inference_ms", "number", "ms", "forward pass of the batch; on CUDA by its own events"),
    Field("postprocess_ms", "number", "ms", "NMS, scaling to original pixels, masks"),
    Field("total_ms", "number", "ms", "from the arrival at the control plane to its answer", True),
)

FIELDS = (
    Field("timestamp", "string", "", "when the line was written: ISO 8601, UTC", True),
    Field("level", "string", "", "info, or warning where the request failed", True),
    Field("event", "string", "", f"always `{EVENT}`", True),
    Field("process", "string", "", "always `control-plane`", True),
    Field(
        "request_id", "string", "", "the caller's, else made here; the worker's log has it", True
    ),
    Field(
        "trace_id",
        "string",
        "",
        "of its W3C trace: the caller's, or one begun here for a collector of traces",
    ),
    Field("outcome", "string", "", "OK, or the reason of the error", True),
    Field("message", "string", "", "the error's words"),
    Field("model", "string", "", "its name; as the caller wrote it, if there is none", True),
    Field("version", "integer", "", "the exact version that was asked"),
    Field("alias", "string", "", "by which the version was found"),
    Field("variant", "string", "", "backend/precision of the build that answered"),
    Field("tenant", "string", "", "of the caller, if it has one"),
    Field("principal", "string", "", "the caller: anonymous, key:ID, or of a token", True),
    Field("peer", "string", "", "the caller's address without its port"),
    Field(
        "door",
        "string",
        "",
        "by which it came: grpc, stream, or the name of the HTTP or KServe door",
        True,
    ),
    Field("client_retry", "integer", "", "times that the caller had sent it before"),
    Field("deadline_ms", "number", "ms", "the time that the caller gave, from its arrival", True),
    Field("worker", "string", "", "that was asked last"),
    Field("device", "string", "", "of that worker"),
    Field("hit", "boolean", "", "a worker had the model when the request arrived", True),
    Field("retried", "strings", "", "workers that were asked before, each with the reason"),
    Field("input_bytes", "integer", "bytes", "of the image as it came", True),
    Field("input_width", "integer", "px", "of the image, upright"),
    Field("input_height", "integer", "px", "of the image, upright"),
    Field("letterbox_width", "integer", "px", "what the model saw"),
    Field("letterbox_height", "integer", "px", "what the model saw"),
    Field("batch_size", "integer", "", "images in the pass"),
    Field(
        "batch_id",
        "integer",
        "",
        "of the pass, unique for its worker: lines with the same `worker` and `batch_id` shared it",
    ),
    Field("cold", "boolean", "", "no pass of this version, shape and size had been run there"),
    Field("memory_retries", "integer", "", "times the pass ran out of memory and was run in parts"),
    Field("queue_length", "integer", "", "tickets that waited or ran when it was queued"),
    *_TIMES,
    Field("detections", "integer", "", "objects in the answer"),
    Field("ledger_used_bytes", "integer", "bytes", "of the device, by the worker's ledger"),
    Field("device_used_bytes", "integer", "bytes", "of the device, by this worker, as measured"),
    Field("device_free_bytes", "integer", "bytes", "of the device; on a CPU of the host"),
    Field(
        "device_utilisation",
        "number",
        "0..1",
        "of the second before: a GPU's own figure, else the part in which passes ran",
    ),
    Field("device_temperature_c", "number", "°C", "of a GPU"),
    Field("device_clock_ratio", "number", "0..1", "of the highest clock of a GPU"),
    Field("device_power_w", "number", "W", "of a GPU"),
    Field("throttled", "strings", "", "why a GPU's clocks are low: thermal, power, slowdown, sync"),
    Field("host_load", "number", "", "threads that run or want to, for each core of the host"),
    Field("sampled", "number", "0..1", "share of such requests that have a line; absent: all"),
)
BY_NAME = {field.name: field for field in FIELDS}
# Parts of the total that do not overlap.
STAGES = (
    "route_ms",
    "load_wait_ms",
    "queue_ms",
    "decode_ms",
    "preprocess_ms",
    "inference_ms",
    "postprocess_ms",
)


def schema() -> dict[str, Any]:
    """JSON Schema of a line. Later releases may add fields."""
    kinds: dict[str, dict[str, Any]] = {
        "strings": {"type": "array", "items": {"type": "string"}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the request log",
        "type": "object",
        "properties": {
            field.name: {
                **kinds.get(field.kind, {"type": field.kind}),
                "description": f"{field.meaning} ({field.unit})" if field.unit else field.meaning,
            }
            for field in FIELDS
        },
        "required": [field.name for field in FIELDS if field.always],
    }

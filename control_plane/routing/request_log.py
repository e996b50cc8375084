"""One log line for each request, whatever its outcome, and its trace for `explain`."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from control_plane.caller import Origin, Trace
from control_plane.routing.request_traces import RequestTrace
from control_plane.types.version import VersionKey
from control_plane.types.worker import DeviceStand
from yolopool.masking import masked
from yolopool.names import ModelRef
from yolopool.request_log import fields
from yolopool.request_log.sampling import Sampling, is_taken
from yolopool.v1 import detection_pb2, worker_pb2

log = structlog.get_logger()

MAX_TEXT_CHARS = 500
# Workers whose devices are kept as fields.
MAX_STANDS = 2000
# Where a line has one of these it is looked through: figures that are no numbers, and secrets.
_NULL, _SECRETS = b":null", (b"yp_", b"eyJ")


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request so far. `arrived_s`: monotonic. `ref`: what `key` was found by; of
    a family, the member's. deadline_s: after its arrival. `trace`: what workers are told; its span
    is the request's own if requests are told as traces, else the caller's.
    """

    request_id: str
    origin: Origin
    model: str
    arrived_s: float
    deadline_s: float = 0.0
    input_bytes: int = 0
    trace: Trace | None = None
    key: VersionKey | None = None
    ref: ModelRef | None = None
    load_wait_s: float = 0.0
    call_s: float = 0.0
    retried: list[str] = field(default_factory=list)
    lost: int = 0  # workers that ended with it in flight
    ledger_used_bytes: int = 0
    facts: worker_pb2.PassFacts | None = None
    stand: DeviceStand | None = None  # as the worker told it last
    worker: str = ""
    hit: bool = False  # whether a worker had the model when the request arrived


class RequestLog:
    """`write` takes whole lines; None: lines go to the log of this process, in its form. `now`:
    Unix seconds.
    """

    def __init__(
        self,
        write: Callable[[bytes], object] | None,
        sampling: Sampling,
        now: Callable[[], float],
    ) -> None:
        self._write = write
        self._sampling = sampling
        self._now = now
        self._stamp = _Stamp()
        # Fields of a device by its worker: one look is told of many requests.
        self._stands: dict[str, tuple[DeviceStand, dict[str, Any]]] = {}

    def note(
        self,
        record: RequestRecord,
        outcome: str,
        total_ms: float,
        answer: detection_pb2.DetectResponse | None = None,
        message: str = "",
    ) -> None:
        """`outcome`: OK or an error's reason; `message`: an error's message. Never blocks."""
        model = record.key.model if record.key is not None else record.model
        share = self._sampling.share(model, answer is None, total_ms)
        if not is_taken(record.request_id, share):
            return
        line = line_of(record, outcome, total_ms, answer, message)
        if record.stand is not None and answer is not None:
            line |= self._of_device(record.worker, record.stand)
        if share < 1:
            line["sampled"] = share
        if self._write is None:
            (log.info if answer is not None else log.warning)(fields.EVENT, **line)
            return
        line["event"] = fields.EVENT
        line["process"] = "control-plane"
        line["level"] = "info" if answer is not None else "warning"
        line["timestamp"] = self._stamp.of(self._now())
        self._write(_encoded(line))

    def _of_device(self, worker: str, stand: DeviceStand) -> dict[str, Any]:
        known = self._stands.get(worker)
        if known is None or known[0] is not stand:
            if len(self._stands) >= MAX_STANDS:
                self._stands.clear()
            known = self._stands[worker] = (stand, fields_of(stand))
        return known[1]


class _Stamp:
    """Unix seconds as a line has them, in UTC; what a second has in common is written once."""

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def of(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1e6):06d}Z"


def _encoded(line: dict[str, Any]) -> bytes:
    """JSON has no word for what is no number: such a figure is not known."""
    try:
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half of a surrogate pair, as a claim of a token may have it
        data = _NULL
    if _NULL in data:
        known = {name: value for name, value in line.items() if is_known(value)}
        data = json.dumps(known).encode() + b"\n"
    if any(secret in data for secret in _SECRETS):
        return masked(data.decode()).encode()
    return data


def is_known(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def line_of(
    record: RequestRecord,
    outcome: str,
    total_ms: float,
    answer: detection_pb2.DetectResponse | None,
    message: str,
) -> dict[str, Any]:
    """The fields of a line, as `yolopool.request_log.fields` has them, but for its frame."""
    origin = record.origin
    principal = origin.principal
    line: dict[str, Any] = {
        "request_id": record.request_id,
        "outcome": outcome,
        "model": record.key.model if record.key is not None else record.model,
        "principal": principal.name,
        "door": origin.door,
        "hit": record.hit,
        "total_ms": round(total_ms, 3),
        "load_wait_ms": round(record.load_wait_s * 1000, 3),
        "deadline_ms": round(record.deadline_s * 1000, 3),
        "input_bytes": record.input_bytes,
    }
    if record.key is not None:
        line["version"] = record.key.number
    if record.ref is not None and record.ref.alias is not None:
        line["alias"] = record.ref.alias
    for name, value in (
        ("worker", record.worker),
        ("tenant", principal.tenant),
        ("trace_id", record.trace.trace_id if record.trace is not None else ""),
        ("peer", origin.peer),
        ("client_retry", origin.retry),
        ("retried", record.retried),
        ("message", message[:MAX_TEXT_CHARS]),
    ):
        if value:
            line[name] = value
    if answer is not None:
        _add_answer(line, answer)
        line["ledger_used_bytes"] = record.ledger_used_bytes
    if record.facts is not None:
        _add_facts(line, record.facts)
    return line


def _add_answer(line: dict[str, Any], answer: detection_pb2.DetectResponse) -> None:
    timing, variant = answer.timing, answer.variant
    line["route_ms"] = round(timing.route_ms, 3)
    line["queue_ms"] = round(timing.queue_ms, 3)
    line["decode_ms"] = round(timing.decode_ms, 3)
    line["preprocess_ms"] = round(timing.preprocess_ms, 3)
    line["inference_ms"] = round(timing.inference_ms, 3)
    line["postprocess_ms"] = round(timing.postprocess_ms, 3)
    line["device"] = answer.device
    line["variant"] = f"{variant.backend}/{variant.precision}"
    line["input_width"] = answer.image_width
    line["input_height"] = answer.image_height
    line["batch_size"] = answer.batch_size
    line["detections"] = len(answer.detections)


def _add_facts(line: dict[str, Any], facts: worker_pb2.PassFacts) -> None:
    line["batch_id"] = facts.batch_id
    line["letterbox_width"] = facts.letterbox_width
    line["letterbox_height"] = facts.letterbox_height
    line["queue_length"] = facts.queue_length
    line["cold"] = facts.cold
    line["transfer_ms"] = round(facts.transfer_ms, 3)
    line["memory_retries"] = facts.memory_retries


def fields_of(stand: DeviceStand) -> dict[str, Any]:
    """Those that tell of the device; what it does not say is absent."""
    found: dict[str, Any] = {
        "device_used_bytes": stand.used_bytes,
        "device_free_bytes": stand.free_bytes,
    }
    for name, value in (
        ("device_utilisation", stand.utilisation),
        ("device_temperature_c", stand.temperature_c),
        ("device_clock_ratio", stand.clock_ratio),
        ("device_power_w", stand.power_w),
        ("host_load", stand.host_load),
    ):
        if value is not None:
            found[name] = round(value, 3)
    if stand.throttled:
        found["throttled"] = list(stand.throttled)
    return found


def trace(
    record: RequestRecord,
    outcome: str,
    total_ms: float,
    now: float,
    answer: detection_pb2.DetectResponse | None = None,
    message: str = "",
) -> RequestTrace:
    """As `RequestLog.note`; now: Unix seconds. Long texts are cut, since ten thousand traces are
    kept.
    """
    timing = answer.timing if answer is not None else detection_pb2.Timing()
    return RequestTrace(
        request_id=record.request_id,
        unix_s=now - total_ms / 1000,
        principal=record.origin.principal.name,
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

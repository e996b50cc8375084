"""Traces and metrics as a collector gets them: a real OTLP receiver on loopback, and a real control
plane.
"""

import asyncio
import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from control_plane.caller import trace_of_header
from control_plane.routing.tracing.otlp import Otlp
from control_plane.telemetry.collector import Collector
from tests.contract.control_plane_rig import Rig, refused
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY = "yp_0123456789_0123456789abcdef"
TAKEN, LEFT = ((("traceparent", f"00-{TRACE}-{SPAN}-{flags}"),) for flags in ("01", "00"))


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent, and the metrics as it was sent them last."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        self.came = threading.Event()
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(self), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:
        with self._lock:
            for resource in request.resource_spans:
                told = resource.resource.attributes
                self.resource = {one.key: one.value.string_value for one in told}
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(0).wait()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self._receiver.metrics = {metric.name: metric for metric in scope.metrics}
        self._receiver.came.set()
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def collector() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


async def traced(rig: Rig, request_id: str, metadata: Any) -> None:
    request = detection_pb2.DetectRequest(model="a", encoded=b"image", request_id=request_id)
    await rig.detection.Detect(request, metadata=metadata, timeout=20)


def attributes(span: Any) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


async def test_a_request_is_a_span_with_its_stages_inside_the_callers_trace(
    tmp_path: Path, collector: Receiver
) -> None:
    async with Rig(tmp_path, otlp_endpoint=collector.endpoint) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        await traced(rig, "r1", TAKEN)
        await refused(rig.detect(KEY, request_id="r2"))
    whole = wholes(collector)
    assert set(whole) == {"r1", "r2"}
    one = whole["r1"]
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, SPAN)
    told = attributes(one)
    assert (told["yolopool.model"], told["yolopool.version"], told["yolopool.worker"]) == (
        "a",
        1,
        "w1",
    )
    assert (told["yolopool.outcome"], told["yolopool.door"]) == ("OK", "grpc")
    stages = [s for s in collector.spans if s.parent_span_id == one.span_id]
    assert {s.name for s in stages} >= {"route", "load wait", "queue", "inference"}
    stages.sort(key=lambda s: s.start_time_unix_nano)
    assert stages[0].start_time_unix_nano >= one.start_time_unix_nano
    for before, after in itertools.pairwise(stages):
        assert after.start_time_unix_nano >= before.end_time_unix_nano - 1000
    inference = next(s for s in stages if s.name == "inference")
    took_ms = (inference.end_time_unix_nano - inference.start_time_unix_nano) / 1e6
    assert took_ms == pytest.approx(2.0, abs=0.01)
    failed = whole["r2"]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert not failed.parent_span_id
    assert attributes(failed)["yolopool.outcome"] in ("MODEL_NOT_FOUND", "INVALID_MODEL_REFERENCE")
    assert KEY not in str(collector.spans)
    assert collector.resource["service.name"] == "yolopool-control-plane"


async def test_a_caller_says_itself_whether_its_trace_is_recorded(
    tmp_path: Path, collector: Receiver
) -> None:
    async with Rig(tmp_path, otlp_endpoint=collector.endpoint, otlp_share=0.0) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        await rig.detect("a", request_id="of-nobody")
        await traced(rig, "no", LEFT)
        await traced(rig, "yes", TAKEN)
    assert set(wholes(collector)) == {"yes"}


async def test_what_is_told_of_a_request_names_its_span(
    tmp_path: Path, collector: Receiver
) -> None:
    """Workers and the log, by gRPC and by HTTP, whether the caller has a trace or not."""
    async with Rig(tmp_path, otlp_endpoint=collector.endpoint) as rig:
        worker = await rig.worker("w1")
        await rig.ready("a")
        with capture_logs() as lines:
            await traced(rig, "mine", TAKEN)
            await traced(rig, "left", LEFT)
            await rig.detect("a", request_id="of-nobody")
            async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
                headers = {"x-request-id": "rest", **dict(TAKEN)}
                answer = await http.post(
                    "/v1/detect", params={"model": "a"}, headers=headers, content=b"image"
                )
    logged = {line["request_id"]: line.get("trace_id") for line in lines if "outcome" in line}
    told = dict(zip(("mine", "left", "of-nobody", "rest"), worker.traceparents, strict=True))
    whole = wholes(collector)
    assert told.pop("left") == dict(LEFT)["traceparent"]
    assert logged.pop("left") == TRACE
    assert set(whole) == set(told) == set(logged) == {"mine", "of-nobody", "rest"}
    for request_id, span in whole.items():
        trace = trace_of_header(told[request_id])
        assert trace is not None
        assert trace.trace_id == span.trace_id.hex() == logged[request_id]
        assert trace.span_id == span.span_id.hex()
    assert whole["mine"].parent_span_id.hex() == whole["rest"].parent_span_id.hex() == SPAN
    assert not whole["of-nobody"].parent_span_id
    assert answer.headers["traceparent"] == told["rest"]
    assert attributes(whole["rest"])["yolopool.door"] == "rest"


async def test_without_a_collector_the_callers_trace_is_passed_on(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        worker = await rig.worker("w1")
        await rig.ready("a")
        await rig.detect("a")
        await traced(rig, "one", TAKEN)
        assert worker.traceparents == [dict(TAKEN)["traceparent"]]


async def test_a_collector_is_told_the_metrics(tmp_path: Path, collector: Receiver) -> None:
    async with Rig(
        tmp_path, otlp_endpoint=collector.endpoint, otlp_share=0.0, otlp_metrics_s=0.2
    ) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        assert await asyncio.to_thread(collector.came.wait, 20)
        for _ in range(3):
            await rig.detect("a")
        await refused(rig.detect("none"))
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            page = (await http.get("/metrics")).text
    # The last look is at the end.
    told = collector.metrics
    ended = {attributes(one)["outcome"]: one for one in told["yolopool_requests"].sum.data_points}
    counted = {name: one.as_double for name, one in ended.items() if one.as_double}
    assert counted == {"OK": 3, "MODEL_NOT_FOUND": 1}
    assert ended["OK"].start_time_unix_nano < ended["OK"].time_unix_nano
    assert told["yolopool_requests"].sum.is_monotonic
    assert told["yolopool_stage_seconds"].unit == "s"
    stages = {attributes(one)["stage"]: one for one in points(told["yolopool_stage_seconds"])}
    inference = stages["inference"]
    assert (inference.count, inference.sum) == (3, pytest.approx(0.006))
    at = list(inference.explicit_bounds).index(0.0025)
    assert [n for n, count in enumerate(inference.bucket_counts) if count] == [at]
    assert len(inference.bucket_counts) == len(inference.explicit_bounds) + 1
    budget = {"worker": "w1", "term": "budget"}
    (ledger,) = [
        one for one in told["yolopool_ledger_bytes"].gauge.data_points if attributes(one) == budget
    ]
    assert ledger.as_double == 200
    families = {one.name for one in text_string_to_metric_families(page) if one.samples}
    assert {name for name in families if not name.endswith("_created")} <= set(told)


def points(metric: Any) -> Any:
    return metric.histogram.data_points


def wholes(receiver: Receiver) -> dict[str, Any]:
    """The spans of requests, by the ids of those."""
    return {attributes(s)["yolopool.request_id"]: s for s in receiver.spans if s.attributes}


async def test_a_collector_that_is_not_there_costs_nobody_an_answer(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with Rig(tmp_path, otlp_endpoint="http://127.0.0.1:1") as rig:
            await rig.worker("w1")
            await rig.ready("a")
            for _ in range(5):
                await rig.detect("a")
    # Once for all attempts to tell it of traces and of metrics.
    (line,) = [line for line in lines if line["event"] == "the collector is not told"]
    assert "127.0.0.1:1" in line["why"]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidOption, match=r"pip install 'yolopool\[otel\]'"):
        Otlp(Collector("http://127.0.0.1:1", "a", "1"), 1.0)

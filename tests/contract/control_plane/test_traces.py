"""Traces as a collector gets them: a real OTLP receiver on loopback, and a real control plane."""

import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from control_plane.routing.tracing.otlp import Otlp
from tests.contract.control_plane_rig import Rig, refused
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY = "yp_0123456789_0123456789abcdef"
TAKEN, LEFT = ((("traceparent", f"00-{TRACE}-{SPAN}-{flags}"),) for flags in ("01", "00"))


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resource: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
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


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
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
    tmp_path: Path, collector: Collector
) -> None:
    async with Rig(tmp_path, otlp_endpoint=collector.endpoint) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        await traced(rig, "r1", TAKEN)
        await refused(rig.detect(KEY, request_id="r2"))
    whole = {attributes(s)["yolopool.request_id"]: s for s in collector.spans if s.attributes}
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
    tmp_path: Path, collector: Collector
) -> None:
    async with Rig(tmp_path, otlp_endpoint=collector.endpoint, otlp_share=0.0) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        await rig.detect("a", request_id="of-nobody")
        await traced(rig, "no", LEFT)
        await traced(rig, "yes", TAKEN)
    ids = {attributes(s)["yolopool.request_id"] for s in collector.spans if s.attributes}
    assert ids == {"yes"}


async def test_a_collector_that_is_not_there_costs_nobody_an_answer(tmp_path: Path) -> None:
    async with Rig(tmp_path, otlp_endpoint="http://127.0.0.1:1") as rig:
        await rig.worker("w1")
        await rig.ready("a")
        for _ in range(5):
            await rig.detect("a")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidOption, match=r"pip install 'yolopool\[otel\]'"):
        Otlp("http://127.0.0.1:1", 1.0, "a", "1")

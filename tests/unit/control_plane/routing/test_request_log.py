"""A line of the request log: every field has its place in the schema, and none of it is lost."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import structlog

from control_plane.caller import Origin, Principal, Trace, address_of, origin_of
from control_plane.routing.request_log import RequestLog, RequestRecord
from control_plane.types.access.api_key import Role
from control_plane.types.version import VersionKey
from control_plane.types.worker import DeviceStand
from yolopool.names import parse_ref
from yolopool.request_log.fields import BY_NAME, FIELDS
from yolopool.request_log.sampling import parse
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2

KEY = "yp_0123456789_0123456789abcdef"
KINDS: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "strings": list,
}  # fmt: skip


def record(**changes: Any) -> RequestRecord:
    principal = Principal("key:k", Role.DETECT, tenant="acme")
    trace = Trace("ab" * 16, "01", "cd" * 8)
    origin = Origin(principal, "rest", "10.0.0.7", trace, 2)
    return RequestRecord(
        **{
            "request_id": "r1",
            "trace": trace,
            "origin": origin,
            "model": "parts:stable",
            "arrived_s": 0.0,
            "deadline_s": 30.0,
            "input_bytes": 1000,
            "key": VersionKey("parts", 3),
            "ref": parse_ref("parts:stable"),
            "retried": ["w0: WORKER_LOST"],
            "worker": "w1",
            "hit": True,
            "facts": FACTS,
            "stand": STAND,
            **changes,
        }
    )


FACTS = worker_pb2.PassFacts(
    batch_id=7, letterbox_width=640, letterbox_height=480, queue_length=3, transfer_ms=0.5
)
STAND = DeviceStand(
    used_bytes=10,
    free_bytes=20,
    utilisation=0.5,
    temperature_c=60,
    clock_ratio=0.75,
    power_w=200,
    throttled=("power",),
    host_load=1.5,
)
ANSWER = detection_pb2.DetectResponse(
    detections=[detection_pb2.Detection()] * 2,
    image_width=1280,
    image_height=960,
    device="cuda:GPU-1",
    batch_size=4,
    timing=detection_pb2.Timing(queue_ms=1.25, inference_ms=9.8765),
    variant=types_pb2.Variant(backend="torch", precision="fp32"),
)


def lines_of(sample: str = "") -> tuple[RequestLog, list[str]]:
    lines: list[str] = []
    return RequestLog(
        lambda line: lines.append(line.decode()), parse(sample), lambda: 1764576000.25
    ), lines


def test_an_answer_has_every_field_and_each_is_of_its_type() -> None:
    log, lines = lines_of("parts=0.999999999")
    log.note(record(), "OK", 12.3456, ANSWER)
    (text,) = lines
    line = json.loads(text)
    assert text.endswith("}\n")
    assert set(BY_NAME) - set(line) == {"message"}
    assert set(line) <= set(BY_NAME)
    for name, value in line.items():
        assert isinstance(value, KINDS[BY_NAME[name].kind]), name
    assert line["timestamp"] == "2025-12-01T08:00:00.250000Z"
    assert (line["model"], line["version"], line["alias"]) == ("parts", 3, "stable")
    assert (line["total_ms"], line["inference_ms"], line["batch_id"]) == (12.346, 9.877, 7)
    assert (line["door"], line["peer"], line["client_retry"]) == ("rest", "10.0.0.7", 2)
    assert (line["device_clock_ratio"], line["throttled"]) == (0.75, ["power"])


def test_a_failure_has_what_is_in_every_line_and_no_secret() -> None:
    log, lines = lines_of()
    failed = record(key=None, ref=None, model=KEY, worker="", facts=None, retried=[], hit=False)
    log.note(failed, "MODEL_NOT_FOUND", 0.5, message=f"there is no model {KEY}\nat all")
    (text,) = lines
    line = json.loads(text)
    assert {one.name for one in FIELDS if one.always} <= set(line)
    assert line["level"] == "warning"
    assert not set(line) & {"worker", "version", "batch_id", "device", "queue_ms"}
    assert "0123456789abcdef" not in text
    assert text.count("\n") == 1


def test_what_is_not_known_of_a_device_is_absent() -> None:
    log, lines = lines_of()
    log.note(record(facts=worker_pb2.PassFacts(batch_id=1), stand=None), "OK", 1.0, ANSWER)
    line = json.loads(lines[0])
    assert not {"device_temperature_c", "device_power_w", "throttled", "host_load"} & set(line)
    assert line["cold"] is False
    assert not {"device_used_bytes", "device_free_bytes", "device_utilisation"} & set(line)


def test_a_figure_that_is_no_number_is_absent_and_the_line_stays_json() -> None:
    log, lines = lines_of()
    answer = detection_pb2.DetectResponse()
    answer.timing.inference_ms = math.nan
    stand = DeviceStand(utilisation=math.inf, power_w=math.nan, host_load=0.5)
    facts = worker_pb2.PassFacts(transfer_ms=-math.inf)
    log.note(record(facts=facts, stand=stand), "OK", 1.0, answer)
    line = json.loads(lines[0], parse_constant=pytest.fail)
    wrong = {"inference_ms", "device_utilisation", "device_power_w", "transfer_ms"}
    assert not wrong & set(line)
    assert line["host_load"] == 0.5


def test_each_look_at_a_device_is_told_and_each_second_is_another() -> None:
    now, lines = [0.0], []
    log = RequestLog(lambda line: lines.append(json.loads(line)), parse(""), lambda: now[0])
    for now[0], used in ((1.999999, 10), (1.9999999, 10), (2.0, 20), (3.25, 30)):
        log.note(record(stand=replace(STAND, used_bytes=used)), "OK", 1.0, ANSWER)
    assert [line["device_used_bytes"] for line in lines] == [10, 10, 20, 30]
    assert [line["timestamp"][17:] for line in lines] == [
        "01.999999Z", "01.999999Z", "02.000000Z", "03.250000Z",
    ]  # fmt: skip


def test_half_of_a_surrogate_pair_loses_no_line() -> None:
    log, lines = lines_of()
    log.note(record(model="\ud800", key=None), "MODEL_NOT_FOUND", 1.0)
    assert json.loads(lines[0])["model"] == "\ud800"


def test_a_share_is_said_and_what_is_not_in_it_is_not_written() -> None:
    log, lines = lines_of("errors=1,parts=0.5")
    for number in range(200):
        log.note(record(request_id=f"r{number}"), "OK", 1.0, ANSWER)
    assert 60 < len(lines) < 140
    assert all(json.loads(line)["sampled"] == 0.5 for line in lines)
    log.note(record(), "QUEUE_FULL", 1.0, message="full")
    assert "sampled" not in json.loads(lines[-1])


def test_without_a_file_a_line_has_the_form_of_the_log() -> None:
    log = RequestLog(None, parse(""), lambda: 0.0)
    with structlog.testing.capture_logs() as lines:
        log.note(record(), "OK", 1.0, ANSWER)
    assert lines[0]["event"] == "request"
    assert lines[0]["batch_size"] == 4


class Context:
    door = "camera"

    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self._metadata = metadata

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.7:51312"


def test_where_a_call_comes_from() -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    told = Context(("traceparent", trace), ("grpc-previous-rpc-attempts", "3"))
    origin = origin_of(told)
    assert (origin.door, origin.peer, origin.retry) == ("camera", "10.0.0.7", 3)
    assert origin.trace == Trace("ab" * 16, "01", "cd" * 8)
    assert origin_of(Context(("grpc-previous-rpc-attempts", "-1"))).retry == 0
    assert origin_of(Context(("grpc-previous-rpc-attempts", "9" * 40))).retry == 1000


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5", "127.0.0.1"),
        ("ipv6:[::1]:5", "[::1]"),
        ("unix:/run/pool.sock", "unix:/run/pool.sock"),
        ("10.0.0.7", "10.0.0.7"),
        ("", ""),
        ("x" * 500, "x" * 100),
    ],
)
def test_an_address_has_no_port(peer: str, address: str) -> None:
    assert address_of(peer) == address

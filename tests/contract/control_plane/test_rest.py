"""Detect by HTTP, on a real control plane with a scripted worker: each kind of body, each form of
the answer, errors, ids, and a caller that leaves.
"""

import asyncio
import base64
import csv
import io
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf import json_format
from PIL import Image
from structlog.testing import capture_logs

from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.waiting import becomes
from yolopool.errors import QueueFull
from yolopool.v1 import detection_pb2, types_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBLEM = "application/problem+json"
RAW = {"content-type": "image/jpeg"}


def jpeg(width: int = 96, height: int = 64, orientation: int = 1) -> bytes:
    """A grey picture whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def found(**more: Any) -> Any:
    box = types_pb2.Box(x_min=10, y_min=20.1, x_max=40, y_max=60)
    one = detection_pb2.Detection(class_id=0, class_name='a "b", c', confidence=0.9, box=box)
    return detection_pb2.DetectResponse(
        detections=[one], image_width=96, image_height=64, task="detect", **more
    )


class Setting:
    """One model that is loaded, on one worker."""

    def __init__(self, rig: Rig, worker: ScriptedWorker, http: httpx.AsyncClient) -> None:
        self.rig, self.worker, self.http = rig, worker, http

    async def detect(self, query: str = "model=shapes", **more: Any) -> httpx.Response:
        more.setdefault("content", jpeg())
        more["headers"] = {**RAW, **more.get("headers", {})}
        return await self.http.post(f"/v1/detect?{query}", **more)

    def last(self) -> Any:
        """What the worker was asked."""
        return self.worker.inferred[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    async with Rig(
        tmp_path_factory.mktemp("rest"), http_cors_origins=("https://a.example",)
    ) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            yield Setting(rig, worker, http)


@pytest.fixture(autouse=True)
def as_usual(setting: Setting) -> None:
    setting.worker.found = found()
    setting.worker.on_infer, setting.worker.infer_s = None, 0.0


async def test_the_answer_is_that_of_grpc(setting: Setting) -> None:
    image = jpeg()
    by_grpc = await setting.rig.detect("shapes", encoded=image, request_id="one")
    answer = await setting.detect(content=image, headers={"x-request-id": "one"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["detections"][0]["class_id"] == 0  # what is zero is told too
    assert answer.json()["detections"][0]["confidence"] == 0.9  # as few digits as will do
    by_rest = json_format.Parse(answer.text, detection_pb2.DetectResponse())
    assert setting.worker.inferred[-1].encoded == setting.worker.inferred[-2].encoded == image
    for one in (by_grpc, by_rest):
        one.ClearField("timing")
    assert by_rest == by_grpc


async def test_each_kind_of_body_is_the_same_request(setting: Setting) -> None:
    image, fields = jpeg(), {"confidence": "0.5", "classes": "0,2", "priority": "bulk"}
    text = base64.b64encode(image).decode()
    members = {"confidence": 0.5, "classes": [0, 2], "priority": "bulk", "model": "shapes"}
    query = "model=shapes&confidence=0.5&classes=0&classes=2&priority=PRIORITY_BULK"
    post = setting.http.post
    await setting.detect(query, content=image)
    await post(f"/v1/detect?{query}", content=image)  # says no type, as curl says another's
    await post(
        f"/v1/detect?{query}",
        content=image,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    for part in ("image", "file"):
        await post("/v1/detect", data={"model": "shapes", **fields}, files={part: image})
    await post("/v1/detect", json={"image": text, **members})
    await post("/v1/detect", json={"image": f"data:image/jpeg;base64,{text}", **members})
    asked = setting.worker.inferred[-7:]
    for one in asked:
        one.request_id = ""
    assert asked[0].encoded == image
    assert list(asked[0].options.classes) == [0, 2]
    assert asked[0].priority == types_pb2.PRIORITY_BULK
    assert all(one == asked[0] for one in asked)


async def test_every_option_reaches_the_worker(setting: Setting) -> None:
    options = {
        "confidence": "0.5",
        "class_confidences": "0:0.25,3:0.75",
        "iou": "0.5",
        "max_detections": "7",
        "classes": "0,2",
        "agnostic_nms": "true",
        "region_of_interest": "1,2,30,40.5",
        "mask_format": "rle",
        "top_k": "3",
        "all_probabilities": "true",
        "image_size": "64",
        "tiling": "32,0.25",
        "accept_damaged": "true",
    }
    assert set(options) == set(detection_pb2.DetectOptions.DESCRIPTOR.fields_by_name)
    answer = await setting.http.post(
        "/v1/detect", params={"model": "shapes", "timeout": "20", **options}, content=jpeg()
    )
    assert answer.status_code == 200, answer.text
    assert setting.last().options == detection_pb2.DetectOptions(
        confidence=0.5,
        class_confidences=[
            detection_pb2.ClassConfidence(class_id=0, confidence=0.25),
            detection_pb2.ClassConfidence(class_id=3, confidence=0.75),
        ],
        iou=0.5,
        max_detections=7,
        classes=[0, 2],
        agnostic_nms=True,
        region_of_interest=types_pb2.Box(x_min=1, y_min=2, x_max=30, y_max=40.5),
        mask_format=detection_pb2.MASK_FORMAT_RLE,
        top_k=3,
        all_probabilities=True,
        image_size=64,
        tiling=detection_pb2.Tiling(tile_size=32, overlap=0.25),
        accept_damaged=True,
    )
    region = {"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40.5}
    members = {
        "model": "shapes",
        "image": base64.b64encode(jpeg()).decode(),
        "class_confidences": [{"class_id": 0, "confidence": 0.25}],
        "region_of_interest": region,
        "tiling": {},
    }
    assert (await setting.http.post("/v1/detect", json=members)).status_code == 200
    asked = setting.last().options
    assert asked.region_of_interest.y_max == 40.5
    assert asked.HasField("tiling")
    assert not asked.HasField("confidence")


async def test_forms_of_the_answer(setting: Setting) -> None:
    answer = await setting.detect(headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [dict(row) for row in rows] == [
        {
            "class_id": "0", "class_name": 'a "b", c', "confidence": "0.9",
            "x_min": "10", "y_min": "20.1", "x_max": "40", "y_max": "60",
        }
    ]  # fmt: skip
    for accept in ("*/*", "application/*", "image/png;q=0.2, application/json", ""):
        answer = await setting.detect(headers={"accept": accept})
        assert answer.headers["content-type"] == "application/json", accept
    lines = [("content-type", "image/jpeg"), ("accept", "text/html"), ("accept", "text/csv")]
    answer = await setting.http.post(
        "/v1/detect?model=shapes", content=jpeg(), headers=httpx.Headers(lines)
    )
    assert answer.headers["content-type"].startswith("text/csv")
    answer = await setting.detect(headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    answer = await setting.detect(headers={"accept": "text/html, image/gif"})
    assert (answer.status_code, answer.json()["reason"]) == (406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
async def test_the_picture_is_drawn_on_the_upright_image(setting: Setting, media_type: str) -> None:
    # It lies on its side in the file; results are for the upright one.
    answer = await setting.detect(
        content=jpeg(64, 96, orientation=6), headers={"accept": f"{media_type}, text/plain"}
    )
    assert answer.headers["content-type"] == media_type
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.size, picture.get_format_mimetype()) == ((96, 64), media_type)
    drawn = np.asarray(picture.convert("RGB"), int)
    colourful = np.ptp(drawn, axis=2) > 60
    assert colourful[40, 8:13].any()  # the left side of the box
    assert not colourful[25:, 60:].any()  # right of it, and below its label


async def test_no_picture_of_what_pillow_does_not_read(setting: Setting) -> None:
    answer = await setting.detect(content=b"no picture", headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "IMAGE_NOT_DECODABLE")
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("query", "body", "kind", "status", "reason"),
    [
        ("model=none", b"x", "image/jpeg", 404, "MODEL_NOT_FOUND"),
        ("model=shapes@9", b"x", "image/jpeg", 404, "VERSION_NOT_FOUND"),
        ("model=UPPER", b"x", "image/jpeg", 400, "INVALID_MODEL_REFERENCE"),
        ("model=shapes", b"", "image/jpeg", 400, "IMAGE_EMPTY"),
        ("", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&confidence=2", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&confidence=nan", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&conf=0.5", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&iou=0.5&iou=0.6", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&region_of_interest=1,2,3", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&region_of_interest=9,9,3,3", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&timeout=0", b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes&" + "a=1&" * 200, b"x", "image/jpeg", 400, "INVALID_OPTION"),
        ("model=shapes", b"x", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("model=shapes", b"{", "application/json", 400, "INVALID_ARGUMENT"),
        ("model=shapes", b"[]", "application/json", 400, "INVALID_ARGUMENT"),
        ("model=shapes", b'{"image": "!"}', "application/json", 400, "INVALID_OPTION"),
        ("model=shapes", b'{"image": "\\ud800"}', "application/json", 400, "INVALID_ARGUMENT"),
        ("iou=1", b'{"iou": 1, "image": ""}', "application/json", 400, "INVALID_OPTION"),
        ("model=shapes", b"x", "multipart/form-data", 400, "INVALID_ARGUMENT"),
        ("model=shapes", b"x", "multipart/form-data; boundary=b", 400, "INVALID_ARGUMENT"),
    ],
)
async def test_refusals_are_problems(
    setting: Setting, query: str, body: bytes, kind: str, status: int, reason: str
) -> None:
    answer = await setting.detect(query, content=body, headers={"content-type": kind})
    told = answer.json()
    assert (answer.status_code, told["reason"]) == (status, reason), told
    assert answer.headers["content-type"] == PROBLEM
    assert told["status"] == status
    assert told["request_id"] == answer.headers["x-request-id"]


async def test_one_image_a_request(setting: Setting) -> None:
    two = [("image", jpeg()), ("image", jpeg())]
    answer = await setting.http.post("/v1/detect?model=shapes", files=two)
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_ARGUMENT")
    assert "2 images" in answer.json()["detail"]
    many = {f"f{number}": "" for number in range(100)}
    answer = await setting.http.post("/v1/detect", data=many, files={"image": jpeg()})
    assert "at most" in answer.json()["detail"]
    answer = await setting.http.post("/v1/detect", data={"model": "shapes"}, files={"a": b""})
    assert answer.status_code == 400


async def test_errors_of_workers_say_when_to_retry(setting: Setting) -> None:
    setting.worker.on_infer = QueueFull("too much to do", retry_after_s=1.2)
    answer = await setting.detect()
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    told = answer.json()
    assert (told["reason"], told["retryable"], told["code"]) == (
        "QUEUE_FULL", True, "RESOURCE_EXHAUSTED",
    )  # fmt: skip
    setting.worker.on_infer, setting.worker.infer_s = None, 30.0
    answer = await setting.detect("model=shapes&timeout=0.2")
    assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


async def test_what_the_libraries_refuse_are_problems_too(setting: Setting) -> None:
    for method, path, status, reason in (
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("DELETE", "/v1/detect", 405, "METHOD_NOT_ALLOWED"),
    ):
        answer = await setting.http.request(method, path)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["detail"].startswith(f"{method} {path}: ")
    assert answer.headers["allow"] == "POST"


async def test_ids_are_taken_and_given_back(setting: Setting) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    traceparent = f"00-{trace}-{span}-01"
    answer = await setting.detect(headers={"x-request-id": "a/b:1", "traceparent": traceparent})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "a/b:1"
    version, same, own, flags = answer.headers["traceparent"].split("-")
    assert (version, same, flags) == ("00", trace, "01")
    assert own != span
    assert len(own) == 16
    for bad in ("x y", "", "ä", "x" * 129):
        answer = await setting.detect(headers={"x-request-id": bad.encode(), "traceparent": "no"})
        assert answer.headers["x-request-id"] == answer.json()["request_id"] != bad
        assert "traceparent" not in answer.headers
    answer = await setting.http.get("/nothing", headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine"


async def test_a_caller_who_leaves_ends_its_detect(setting: Setting) -> None:
    setting.worker.infer_s, before = 30.0, setting.worker.cancelled
    host, _, port = setting.rig.addresses.http.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    began = len(setting.worker.inferred)
    writer.write(
        b"POST /v1/detect?model=shapes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    )
    await becomes(lambda: len(setting.worker.inferred) > began)
    writer.close()
    await becomes(lambda: setting.worker.cancelled == before + 1)


async def test_head_cors_and_the_name_of_the_server(setting: Setting) -> None:
    answer = await setting.http.head("/livez")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "3"
    assert answer.headers["server"].startswith("yolopool/")
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    answer = await setting.http.options("/v1/detect", headers=asks)
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    answer = await setting.detect(headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers
    answer = await setting.detect(headers={"origin": "https://a.example"})
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Request-Id", "Upload-Offset"} <= set(exposed.split(", "))


async def test_the_documentation_page_needs_no_network(setting: Setting) -> None:
    page = await setting.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name, kind in (
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("favicon.png", "image/png"),
    ):
        assert f"/docs/{name}" in page.text
        file = await setting.http.get(f"/docs/{name}")
        assert file.headers["content-type"].startswith(kind)
        assert len(file.content) > 1000
    assert (await setting.http.get("/docs/..%2fcore.py")).status_code == 404


async def test_the_trace_is_in_the_log_by_every_door(setting: Setting) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traceparent = f"00-{trace}-b7ad6b7169203331-01"
    with capture_logs() as lines:
        await setting.detect(headers={"traceparent": traceparent, "x-request-id": "a"})
        for request_id, model in (("b", "shapes"), ("c", "none"), ("d", "UPPER")):
            request = detection_pb2.DetectRequest(model=model, encoded=b"x", request_id=request_id)
            with suppress(grpc.aio.AioRpcError):
                await setting.rig.detection.Detect(
                    request, timeout=10, metadata=(("traceparent", traceparent),)
                )
        await setting.detect(headers={"x-request-id": "e"})
    logged = {line["request_id"]: line.get("trace_id") for line in lines if "outcome" in line}
    assert logged == {"a": trace, "b": trace, "c": trace, "d": trace, "e": None}


async def test_many_calls_over_one_connection(setting: Setting) -> None:
    host, _, port = setting.rig.addresses.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    call = b"POST /v1/detect?model=%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n"
    for model, status in ((b"shapes", b"200"), (b"none", b"404"), (b"shapes", b"200")):
        writer.write(call % model + b"x" * 1000)
        await asyncio.sleep(0.01)
        writer.write(b"x" * 1000)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == status
        assert b"connection: close" not in head
        length = int(head.partition(b"content-length: ")[2].split()[0])
        await reader.readexactly(length)
    # One that is answered before its body came: the rest of it is passed over.
    writer.write(call.replace(b"Host", b"Accept: text/html\r\nHost") % b"shapes" + b"x" * 1000)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] == b"406"
    await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
    writer.write(b"x" * 1000 + call % b"shapes" + b"x" * 2000)
    assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"200"
    writer.close()


async def test_ipv6(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    async with Rig(tmp_path, http_host="::1") as rig:
        assert rig.addresses.http.startswith("[::1]:")
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            assert (await http.get("/livez")).status_code == 200


async def test_a_call_that_outlasts_the_grace_is_told_why(tmp_path: Path) -> None:
    async with Rig(tmp_path, drain_grace_s=0.1, lease_s=60) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        worker.infer_s = 60.0
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            call = asyncio.create_task(http.post("/v1/detect?model=shapes", content=b"x"))
            await becomes(lambda: worker.inferred)
            await rig.plane.stop()
            answer = await call
        assert (answer.status_code, answer.json()["reason"]) == (503, "DRAINING")
        assert answer.headers["connection"] == "close"

"""The KServe v2 doors of a real control plane, by gRPC and by HTTP, with scripted workers.

An unmodified tritonclient: tests/e2e/kserve.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from control_plane.gateway.kserve import grpc_door
from control_plane.gateway.kserve.operations import AT_ONCE
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool.errors import ImageNotDecodable, RegistryUnavailable
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.kserve import grpc_service_pb2_grpc
from yolopool.v1 import detection_pb2, model_pb2, types_pb2, worker_pb2

BROKEN = b"broken"


class Echo(ScriptedWorker):
    """Answers b"seconds class" after that time with an object of that class."""

    running = most = 0

    def __init__(self, name: str, models: int) -> None:
        super().__init__(name, models)
        self.open = asyncio.Event()
        self.open.set()

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        self.inferred.append(request)
        if request.encoded == BROKEN:
            raise ImageNotDecodable("no image: give a JPEG")
        words = (request.encoded or request.raw.data[:3].hex().encode()).split()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(float(words[0]) if len(words) == 2 else 0)
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        found = detection_pb2.Detection(class_id=int(words[-1], 16), confidence=0.5)
        count = max(1, request.options.max_detections)
        result = detection_pb2.DetectResponse(
            version=request.version, batch_size=2, task="detect", detections=[found] * count,
            timing=detection_pb2.Timing(inference_ms=1.0, queue_ms=0.5),
        )  # fmt: skip
        return worker_pb2.InferResponse(result=result, load=types_pb2.LoadReport())


class Doors:
    def __init__(self, rig: Rig, worker: Echo, channel: grpc.aio.Channel) -> None:
        self.rig, self.worker = rig, worker
        self.stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        self.http = httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=30)

    async def infer(self, *images: bytes, timeout: float = 30, **more: Any) -> Any:
        return await self.stub.ModelInfer(asked(*images, **more), timeout=timeout)

    async def post(self, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.http.post(path, content=content, headers=named)


def asked(*images: bytes, model: str = "team/one", **more: Any) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest(model_name=model, **more)
    request.inputs.add(name="image", datatype="BYTES", shape=[len(images), 1])
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in images)
    request.raw_input_contents.append(raw)
    return request


def classes(response: kserve.ModelInferResponse) -> list[int]:
    names = [one.name for one in response.outputs]
    data = response.raw_output_contents[names.index("classes")]
    found: list[int] = np.frombuffer(data, "<i4").tolist()
    return found


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    # No worker is lost here, however long a busy host leaves this process no processor.
    async with Rig(tmp_path, lease_s=30.0) as rig:
        worker = Echo("echo", models=4)
        await worker.start(rig.addresses.grpc)
        try:
            await rig.ready("team/one")
            async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
                doors = Doors(rig, worker, channel)
                async with doors.http:
                    yield doors
        finally:
            await worker.die()


async def test_images_of_a_batch_run_at_once_and_are_answered_in_their_order(doors: Doors) -> None:
    await doors.infer(b"0 1")
    images = [f"{0.2 if i == 0 else 0} {i}".encode() for i in range(8)]
    call = asyncio.create_task(doors.infer(*images))
    await becomes(lambda: len(doors.worker.inferred) == 9)
    assert classes(await call) == list(range(8))


async def test_a_large_batch_leaves_room_in_the_queues_of_workers(doors: Doors) -> None:
    await doors.infer(b"0 1")
    doors.worker.open.clear()
    call = asyncio.create_task(doors.infer(*[f"0 {i:x}".encode() for i in range(64)]))
    await becomes(lambda: doors.worker.running == AT_ONCE)
    doors.worker.open.set()
    assert classes(await call) == list(range(64))
    assert doors.worker.most == AT_ONCE


async def test_a_batch_has_one_version_whatever_is_registered_meanwhile(doors: Doors) -> None:
    await doors.infer(b"0 1")
    doors.worker.open.clear()
    call = asyncio.create_task(doors.infer(*[b"0 1"] * (AT_ONCE + 8)))
    await becomes(lambda: doors.worker.running == AT_ONCE)
    await doors.rig.register("team/one", b"another")
    await doors.rig.import_next()
    doors.worker.open.set()
    assert (await call).model_version == "1"
    assert {one.version.version for one in doors.worker.inferred} == {1}
    assert (await doors.infer(b"0 1")).model_version == "2"


async def test_a_batch_that_was_taken_is_answered_by_a_process_that_stops(doors: Doors) -> None:
    await doors.infer(b"0 1")
    doors.worker.open.clear()
    call = asyncio.create_task(doors.infer(*[b"0 1"] * (AT_ONCE + 8)))
    await becomes(lambda: doors.worker.running == AT_ONCE)
    stopping = asyncio.create_task(doors.rig.plane.stop())
    await becomes(lambda: doors.rig.plane.dispatch.is_stopping)
    assert (await refused(doors.infer(b"0 1"))).reason == "DRAINING"
    doors.worker.open.set()
    assert classes(await call) == [1] * (AT_ONCE + 8)
    await stopping


async def test_an_error_that_others_get_too_is_theirs_as_it_was(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who miss a version wait for one write of the want."""
    asking = asyncio.Event()

    async def full(*_: Any) -> None:
        await asking.wait()
        raise RegistryUnavailable("the registry has no room: try again")

    monkeypatch.setattr(doors.rig.registry, "want", full)
    calls = [asyncio.create_task(refused(doors.infer(*[b"0 1"] * n))) for n in (1, 2, 3)]
    await asyncio.sleep(0.2)
    asking.set()
    alone, two, three = [error.message for error in await asyncio.gather(*calls)]
    assert alone == "the registry has no room: try again"
    assert two == f"image 0 (counted from 0) of 2: {alone}"
    assert three == f"image 0 (counted from 0) of 3: {alone}"


async def test_an_image_that_fails_fails_the_request_by_name_and_ends_the_others(
    doors: Doors,
) -> None:
    await doors.infer(b"0 1")
    error = await refused(doors.infer(b"30 1", b"30 2", BROKEN, b"30 3"))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "IMAGE_NOT_DECODABLE")
    assert error.message == "image 2 (counted from 0) of 4: no image: give a JPEG"
    assert error.details["image"] == "2"
    assert error.details["request_id"]
    await becomes(lambda: doors.worker.cancelled == 3)


async def test_who_leaves_ends_its_images(doors: Doors) -> None:
    await doors.infer(b"0 1")
    call = asyncio.create_task(doors.infer(b"30 1", b"30 2"))
    await becomes(lambda: doors.worker.running == 2)
    call.cancel()
    await becomes(lambda: doors.worker.cancelled == 2)


async def test_parameters_reach_the_worker(doors: Doors) -> None:
    request = asked(b"0 1", model_version="1")
    request.parameters["conf"].double_param = 0.25
    request.parameters["priority"].uint64_param = 1
    await doors.stub.ModelInfer(request, metadata=[("x-request-id", "mine")], timeout=30)
    one = doors.worker.inferred[-1]
    assert (one.options.confidence, one.priority) == (0.25, types_pb2.PRIORITY_INTERACTIVE)
    assert one.request_id == "mine"
    request.parameters["timeout"].int64_param = 100_000
    request.raw_input_contents[0] = b"\4\0\0\x0030 1"
    error = await refused(doors.stub.ModelInfer(request, timeout=30))
    assert error.code == "DEADLINE_EXCEEDED"


async def test_many_objects_are_all_answered(doors: Doors) -> None:
    request = asked(b"0 1", b"0 2")
    request.parameters["max_detections"].int64_param = 700
    assert classes(await doors.stub.ModelInfer(request, timeout=30)) == [1] * 700 + [2] * 700


async def test_pixels_reach_the_worker(doors: Doors) -> None:
    image = np.zeros((1, 2, 2, 3), np.float32)
    image[..., 2] = 1
    request = kserve.ModelInferRequest(model_name="team/one", raw_input_contents=[image.tobytes()])
    request.inputs.add(name="images", datatype="FP32", shape=image.shape)
    assert classes(await doors.stub.ModelInfer(request, timeout=30)) == [0x0000FF]
    raw = doors.worker.inferred[-1].raw
    assert (raw.height, raw.width, raw.channel_order) == (2, 2, types_pb2.CHANNEL_ORDER_RGB)


async def requests_of(images: Sequence[bytes]) -> AsyncIterator[kserve.ModelInferRequest]:
    for number, image in enumerate(images):
        yield asked(image, id=str(number))


async def test_a_stream_answers_in_its_order_what_is_refused_too(doors: Doors) -> None:
    images = [f"{0.1 if i % 3 else 0} {i:x}".encode() if i != 5 else BROKEN for i in range(12)]
    answers = [one async for one in doors.stub.ModelStreamInfer(requests_of(images))]
    assert [one.infer_response.id for one in answers] == [str(i) for i in range(12)]
    said = [one.error_message for one in answers]
    assert [i for i, text in enumerate(said) if text] == [5]
    assert said[5].startswith("INVALID_ARGUMENT: IMAGE_NOT_DECODABLE: no image")
    assert [classes(one.infer_response) for one in answers if not one.error_message] == [
        [i] for i in range(12) if i != 5
    ]


async def test_a_stream_that_is_not_read_is_not_run_ahead_of(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    await doors.infer(b"0 1")
    monkeypatch.setattr(grpc_door, "WINDOW", 4)
    before = len(doors.worker.inferred)
    slow = [b"0.3 1"] + [b"0 1"] * 40
    stream = doors.stub.ModelStreamInfer(requests_of(slow))
    await becomes(lambda: len(doors.worker.inferred) == before + 4)
    await asyncio.sleep(0.1)
    assert len(doors.worker.inferred) == before + 4  # the first is not answered yet
    assert len([one async for one in stream]) == 41
    batches = doors.stub.ModelStreamInfer(iter([asked(b"0.3 1", b"0.3 2")] * 4))
    await becomes(lambda: doors.worker.running == 4)
    await asyncio.sleep(0.1)
    assert len(doors.worker.inferred) == before + 41 + 4
    assert len([one async for one in batches]) == 4


async def test_a_stream_that_is_cancelled_frees_what_it_runs(doors: Doors) -> None:
    await doors.infer(b"0 1")
    stream = doors.stub.ModelStreamInfer(requests_of([b"30 1"] * 6))
    reading = asyncio.create_task(anext(aiter(stream)))
    await becomes(lambda: doors.worker.running == 6)
    stream.cancel()
    await becomes(lambda: doors.worker.cancelled == 6)
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_load_keeps_what_is_wanted_and_an_unload_takes_every_version(doors: Doors) -> None:
    rig, stub = doors.rig, doors.stub
    await rig.register("team/one", b"another")
    await rig.import_next()
    await rig.load("team/one@1", pin=True)
    for name in ("team/one@1", "team/one"):
        await stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name=name))
    first, second = sorted(
        (await rig.models.GetModel(model_pb2.GetModelRequest(model="team/one"))).model.versions,
        key=lambda one: one.version.version,
    )
    assert (first.pinned, first.wanted_replicas) == (True, 1)
    assert (second.pinned, second.wanted_replicas) == (False, 1)
    index = await stub.RepositoryIndex(kserve.RepositoryIndexRequest(ready=True))
    assert [(one.name, one.version) for one in index.models] == [
        ("team/one", "2"),
        ("team/one", "1"),
    ]
    request = kserve.RepositoryModelUnloadRequest(model_name="team/one")
    request.parameters["unload_dependents"].bool_param = True
    await stub.RepositoryModelUnload(request)
    assert not doors.worker.replicas
    ready = kserve.ModelReadyRequest(name="team/one", version="2")
    assert not (await stub.ModelReady(ready)).ready
    request.parameters["other"].bool_param = True
    assert (await refused(stub.RepositoryModelUnload(request))).reason == "INVALID_OPTION"


UNKNOWN = {"confidense": kserve.InferParameter(double_param=0.5)}


async def test_statistics_are_what_was_asked(doors: Doors) -> None:
    await doors.infer(b"0 1")
    await doors.infer(*[b"0 1"] * 5)
    await refused(doors.infer(BROKEN))
    await refused(doors.infer(b"0 1", model="team/one@1", id="x", parameters=UNKNOWN))
    await refused(doors.infer(b"30 1", timeout=0.2))
    every = await doors.stub.ModelStatistics(kserve.ModelStatisticsRequest())
    (one,) = every.model_stats
    assert (one.name, one.version, one.inference_count, one.execution_count) == (
        "team/one", "1", 6, 3,
    )  # fmt: skip
    assert (one.inference_stats.success.count, one.inference_stats.fail.count) == (2, 3)
    assert one.inference_stats.compute_infer.ns == pytest.approx(2e6, rel=0.01)
    page = (await doors.http.get("/v2/models/team/one/stats")).json()
    assert page["model_stats"][0]["inference_count"] == 6
    assert (await doors.http.get("/v2/models/stats")).json() == page


async def test_what_is_not_there(doors: Doors) -> None:
    stub = doors.stub
    assert not (await stub.ModelReady(kserve.ModelReadyRequest(name="absent"))).ready
    for call in (
        stub.ModelMetadata(kserve.ModelMetadataRequest(name="absent")),
        stub.ModelConfig(kserve.ModelConfigRequest(name="team/one", version="9")),
        stub.ModelStatistics(kserve.ModelStatisticsRequest(name="absent")),
        stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="absent")),
        doors.infer(b"0 1", model="absent"),
    ):
        assert (await refused(call)).code == "NOT_FOUND"
    other = kserve.RepositoryIndexRequest(repository_name="other")
    assert (await refused(stub.RepositoryIndex(other))).reason == "INVALID_OPTION"
    await doors.rig.register("waits", b"waits")
    error = await refused(stub.ModelMetadata(kserve.ModelMetadataRequest(name="waits")))
    assert error.reason == "MODEL_NOT_READY"
    assert not (await stub.ModelReady(kserve.ModelReadyRequest(name="waits"))).ready
    long = kserve.ModelReadyRequest(name="team/one", version="9" * 5000)
    assert (await refused(stub.ModelReady(long))).reason == "INVALID_MODEL_REFERENCE"
    region = kserve.SystemSharedMemoryRegisterRequest(name="a", key="/a", byte_size=1)
    assert (await refused(stub.SystemSharedMemoryRegister(region))).code == "UNIMPLEMENTED"


async def test_health_is_told_of_the_service_too(doors: Doors) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(doors.rig.addresses.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=grpc_door.SERVICE)
        await becomes(lambda: doors.rig.plane.view.is_loaded)
        answer = await health.Check(request, timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_http_health_and_metadata(doors: Doors) -> None:
    get = doors.http.get
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).status_code == 200
    assert (await get("/v2")).json()["name"] == "yolopool"
    assert (await get("/v2/models/team/one/ready")).status_code == 503
    await doors.infer(b"0 1")
    assert (await get("/v2/models/team/one/ready")).json() == {"name": "team/one", "ready": True}
    assert (await get("/v2/models/team%2Fone/versions/1/ready")).status_code == 200
    assert (await get("/v2/models/absent/ready")).status_code == 503
    assert (await get("/v2/models/team/one")).json()["inputs"][0] == {
        "name": "image", "datatype": "BYTES", "shape": [-1, 1],
    }  # fmt: skip
    config = (await get("/v2/models/team/one/versions/1/config")).json()
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    index = await doors.post("/v2/repository/index")
    assert index.json() == [{"name": "team/one", "version": "1", "state": "READY", "reason": ""}]
    assert (await doors.post("/v2/repository/models/team/one/unload", b"{}")).json() == {}
    assert not doors.worker.replicas
    assert (await doors.post("/v2/repository/models/team/one/load")).status_code == 200
    assert doors.worker.replicas


INFER = "/v2/models/team/one/infer"
IN_JSON = json.dumps(
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["MCA3"]}]}
).encode()  # "0 7"


async def test_http_inference_in_json_in_bytes_and_as_one_image(doors: Doors) -> None:
    plain = await doors.post(INFER, IN_JSON)
    outputs = {one["name"]: one["data"] for one in plain.json()["outputs"]}
    assert (outputs["classes"], outputs["num_detections"]) == ([7], [1])
    bare = await doors.post(INFER, b"0 8", inference_header_content_length="0")
    size = int(bare.headers["inference-header-content-length"])
    assert bare.headers["content-type"] == "application/octet-stream"
    assert json.loads(bare.content[:size])["model_name"] == "team/one"
    assert bare.content.endswith(b"\x08\0\0\0")
    for coding, packed in (("gzip", gzip.compress(IN_JSON)), ("deflate", zlib.compress(IN_JSON))):
        same = await doors.post(INFER, packed, content_encoding=coding)
        assert same.json()["outputs"] == plain.json()["outputs"]
    same = await doors.post(INFER, gzip.compress(IN_JSON), content_encoding="GZIP")
    assert same.json()["outputs"] == plain.json()["outputs"]


REFUSED: list[tuple[str, bytes, dict[str, str], int]] = [
    (INFER, b"{", {}, 400),
    (INFER, b"{}", {}, 400),
    (INFER, b"{}", {"inference_header_content_length": "3"}, 400),
    (INFER, b"{}", {"inference_header_content_length": "-1"}, 400),
    (INFER, b"{}", {"inference_header_content_length": "1e9"}, 400),
    (INFER, b"", {"inference_header_content_length": "0"}, 400),
    (INFER, b"[" * 50_000, {}, 400),
    (INFER, b"no gzip", {"content_encoding": "gzip"}, 400),
    (INFER, gzip.compress(b"{}")[:-4], {"content_encoding": "gzip"}, 400),
    (INFER, b"{}", {"content_encoding": "br"}, 400),
    (INFER, BROKEN, {"inference_header_content_length": "0"}, 415),
    ("/v2/models/absent/infer", IN_JSON, {}, 404),
    ("/v2/models/team/one/versions/9/infer", IN_JSON, {}, 404),
    ("/v2/models/team/one/versions/x/infer", IN_JSON, {}, 400),
    ("/v2/models/team/one", b"", {}, 404),
    ("/v2/models/a/b/c/infer", IN_JSON, {}, 400),
    ("/v2/repository/models/team/one", b"", {}, 404),
    ("/v2/repository/models/team/one/load", b'{"parameters": {"config": "{}"}}', {}, 501),
    ("/v2/repository/models/team/one/load", b'{"parameters": 7}', {}, 501),
    ("/v2/systemsharedmemory/region/a/register", b"{}", {}, 501),
    ("/v2/trace/setting", b"{}", {}, 501),
    ("/v2/models/team/one/trace/setting", b"{}", {}, 501),
    (INFER, b"\1" + gzip.compress(b"{}"), {"content_encoding": "gzip"}, 400),
    (INFER, gzip.compress(IN_JSON) + b"more", {"content_encoding": "gzip"}, 400),
    (INFER, gzip.compress(IN_JSON) + gzip.compress(b""), {"content_encoding": "gzip"}, 400),
]


async def test_http_errors_are_a_status_and_a_sentence(doors: Doors) -> None:
    for path, content, headers, status in REFUSED:
        answer = await doors.post(path, content, **headers)
        assert answer.status_code == status, (path, content[:40], headers, answer.text)
        assert len(answer.json()["error"]) > 15
        assert answer.json()["reason"]


async def test_a_packed_body_is_not_unpacked_beyond_a_bound(doors: Doors) -> None:
    bomb = zlib.compressobj(1)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(140)) + bomb.flush()
    assert len(packed) < 2**20
    answer = await doors.post(INFER, packed, content_encoding="deflate")
    assert (answer.status_code, answer.json()["reason"]) == (413, "MESSAGE_TOO_LARGE")


async def test_what_is_unpacked_counts_as_bytes_of_requests(tmp_path: Path) -> None:
    async with Rig(tmp_path, max_request_memory_bytes=2**20) as rig:
        address = f"http://{rig.addresses.http}"
        async with httpx.AsyncClient(base_url=address, timeout=30) as http:

            async def sent(count: int) -> tuple[int, str]:
                body, headers = gzip.compress(b" " * count), {"content-encoding": "gzip"}
                answer = await http.post(INFER, content=body, headers=headers)
                return answer.status_code, answer.json()["reason"]

            for _ in range(3):  # and are given back
                assert await sent(2 * 2**20) == (503, "REQUEST_MEMORY_FULL")
                assert await sent(2**19) == (400, "INVALID_ARGUMENT")


LONG = "MzAgMQ=="  # "30 1"


async def test_who_leaves_by_http_ends_its_images(doors: Doors) -> None:
    await doors.infer(b"0 1")
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [LONG, LONG]}]}
    )
    call = asyncio.create_task(doors.post(INFER, body.encode()))
    await becomes(lambda: doors.worker.running == 2)
    call.cancel()
    await becomes(lambda: doors.worker.cancelled == 2)

"""The contract of DeepStack and CodeProject.AI Server: what camera systems send, and how each of
them reads the answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.control_plane.test_admin_http import fits
from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.waiting import becomes
from yolopool.errors import ImageNotDecodable, QueueFull
from yolopool.v1 import detection_pb2, importing_pb2, types_pb2

EXCHANGES = Path(__file__).parent / "camera_exchanges"
PICTURE = (EXCHANGES / "picture.jpg").read_bytes()


def found(label: str, confidence: float, *box: float) -> detection_pb2.Detection:
    sides = dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
    return detection_pb2.Detection(
        class_name=label, confidence=confidence, box=types_pb2.Box(**sides)
    )


DETECTIONS = [
    found("person", 0.9, 10.9, 20.2, 110.5, 220.99),
    found("Truck", 0.55, 0, 0, 5, 5),
    found("dog", 0.3, 1, 2, 3, 4),
]
PREDICTIONS = [
    {"label": "person", "confidence": 0.9, "x_min": 10, "y_min": 20, "x_max": 110, "y_max": 220},
    {"label": "Truck", "confidence": 0.55, "x_min": 0, "y_min": 0, "x_max": 5, "y_max": 5},
    {"label": "dog", "confidence": 0.3, "x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4},
]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


@pytest.fixture
async def worker(rig: Rig) -> ScriptedWorker:
    worker = await rig.worker("w1")
    worker.found = detection_pb2.DetectResponse(detections=DETECTIONS)
    worker.found.timing.decode_ms = 3.0
    await rig.ready("shapes")
    return worker


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as client:
        yield client


async def exchange(rig: Rig, name: str) -> tuple[int, Any]:
    """Sends what a client sent, and reads the whole answer."""
    host, port = rig.addresses.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent = (EXCHANGES / f"{name}.http").read_bytes()
    head, _, body = sent.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    if b"100-continue" in head:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0])
    writer.close()
    return int(answer.split()[1]), json.loads(await reader.readexactly(length))


CLIENTS = {
    "frigate": None,
    "home_assistant": 0.45,
    "synoai": 0.45,  # with the comma of its country
    "aitool": None,
    "blue_onyx_client": 0.6,
    "codeproject_explorer": 0.4,
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_each_client_sends_is_answered(
    rig: Rig, worker: ScriptedWorker, client: str
) -> None:
    status, answer = await exchange(rig, client)
    assert status == 200, answer
    assert answer["success"] is True
    assert answer["predictions"] == PREDICTIONS
    assert not answer.get("error")  # AITool takes any for a failure
    asked = worker.inferred[-1]
    assert asked.encoded == PICTURE
    wanted = CLIENTS[client]
    assert asked.options.HasField("confidence") == (wanted is not None)
    assert asked.options.confidence == pytest.approx(wanted or 0.0)


async def test_the_answer_has_all_that_the_contract_names(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    answer = fits(await http.post("/v1/vision/detection", files={"image": PICTURE}), 200)
    assert answer == {
        "success": True, "message": "Found person, Truck, dog", "count": 3,
        "predictions": PREDICTIONS, "inferenceMs": 2, "processMs": 5,
        "analysisRoundTripMs": answer["analysisRoundTripMs"], "code": 200, "command": "detect",
        "moduleId": "yolopool", "executionProvider": "simulated", "canUseGPU": False,
    }  # fmt: skip
    for prediction in answer["predictions"]:
        assert all(type(prediction[side]) is int for side in ("x_min", "y_min", "x_max", "y_max"))
    # A client in Rust reads them as numbers without a sign.
    del worker.found.detections[1:]
    worker.found.detections[0].box.x_min = -7.5
    turned = fits(await http.post("/v1/vision/detection", files={"image": PICTURE}), 200)
    assert turned["predictions"] == [PREDICTIONS[0] | {"x_min": 0}]
    worker.found.ClearField("detections")
    none = fits(await http.post("/v1/vision/detection", files={"image": PICTURE}), 200)
    assert (none["count"], none["predictions"], none["message"]) == (0, [], "No objects found")
    worker.found.detections.extend(DETECTIONS[:1] * 5)
    many = fits(await http.post("/v1/vision/detection", files={"image": PICTURE}), 200)
    assert many["message"] == "Found person, person, person..."


class HomeAssistant:
    """As deepstack-python, which Home Assistant's component calls."""

    def __init__(self, http: httpx.AsyncClient, model: str = "") -> None:
        self._http = http
        self._path = f"/v1/vision/custom/{model}" if model else "/v1/vision/detection"

    async def detect(self, image: bytes) -> list[dict[str, Any]]:
        data = {"api_key": "", "min_confidence": "0.45"}
        answer = await self._http.post(self._path, files={"image": image}, data=data)
        if answer.status_code == 404:
            raise ConnectionError("Bad url supplied")
        if answer.status_code != 200:
            raise ConnectionError(f"Error from Deepstack request: {answer.status_code}")
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions


async def test_home_assistant_gets_predictions_or_an_error_that_it_knows(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    assert await HomeAssistant(http).detect(PICTURE) == PREDICTIONS
    assert await HomeAssistant(http, "shapes").detect(PICTURE) == PREDICTIONS
    with pytest.raises(ConnectionError, match="Bad url"):
        await HomeAssistant(http, "no-such").detect(PICTURE)
    worker.on_infer = ImageNotDecodable("this is no image")
    with pytest.raises(ConnectionError, match="415"):
        await HomeAssistant(http).detect(b"no image")


async def test_frigate_finds_its_labels_until_its_threshold(
    worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    """As Frigate's detector: it reads in order, and stops at the first below 0.4."""
    labels = ["person", "car"]
    answer = (
        await http.post("/v1/vision/detection", data={"api_key": ""}, files={"image": PICTURE})
    ).json()
    seen = []
    for prediction in answer.get("predictions"):
        if prediction["confidence"] < 0.4:
            break
        label = prediction["label"].lower()
        label = "car" if label == "truck" else label
        if label not in labels:
            break
        seen.append(labels.index(label))
    assert seen == [0, 1]
    worker.on_infer = QueueFull("8 wait")
    busy = await http.post("/v1/vision/detection", files={"image": PICTURE})
    assert busy.json().get("predictions") is None  # which it passes over


async def test_models_are_listed_and_chosen(rig: Rig, http: httpx.AsyncClient) -> None:
    worker = await rig.worker("w1")
    nothing = await http.post("/v1/vision/detection", files={"image": PICTURE})
    assert fits(nothing, 404)["error"].startswith("no model is ready")
    await rig.ready("shapes", "team/cars")
    for path in ("/v1/vision/custom/list", "/v1/vision/list"):
        for verb in ("GET", "POST"):
            listed = fits(await http.request(verb, path), 200)
            assert (listed["success"], listed["models"]) == (True, ["shapes", "team/cars"])
    which = fits(await http.post("/v1/vision/detection", files={"image": PICTURE}), 404)
    assert "--camera-model" in which["error"]
    for name, version in (("team/cars", "team/cars"), ("Shapes", "shapes"), ("shapes@1", "shapes")):
        answer = await http.post(f"/v1/vision/custom/{name}", files={"image": PICTURE})
        fits(answer, 200)
        assert worker.inferred[-1].version.model == version


async def test_a_model_that_is_not_ready_is_not_in_the_way(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig, httpx.AsyncClient(timeout=20) as http:
        http.base_url = httpx.URL(f"http://{rig.addresses.http}")
        await rig.worker("w1")
        form = {"image": PICTURE}
        await rig.register("broken")
        await rig.import_next(importing_pb2.ImportFailure(reason="NOT_A_MODEL", message="no"))
        none = await http.post("/v1/vision/detection", files=form)
        failed(none, 404, "MODEL_NOT_FOUND", "no model is ready")
        await rig.ready("shapes")
        fits(await http.post("/v1/vision/detection", files=form), 200)
        await rig.register("begun", b"other weights")
        fits(await http.post("/v1/vision/detection", files=form), 200)
        assert fits(await http.get("/v1/vision/list"), 200)["models"] == ["shapes"]


async def test_a_setting_names_the_model_for_cameras(tmp_path: Path) -> None:
    async with Rig(tmp_path, camera_model="cars") as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes", "cars")
        assert (await exchange(rig, "frigate"))[0] == 200
        assert worker.inferred[-1].version.model == "cars"


def failed(answer: httpx.Response, status: int, reason: str, *words: str) -> None:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert (told["success"], told["code"], told["reason"]) == (False, status, reason)
    assert "predictions" not in told
    for word in words:
        assert word in told["error"], told


async def test_what_is_wrong_is_told_as_the_contract_does(
    rig: Rig, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    path = "/v1/vision/detection"
    failed(await http.post(path), 400, "IMAGE_EMPTY", "no valid image file found")
    failed(await http.post(path, data={"image": "text"}), 400, "IMAGE_EMPTY")
    failed(await http.post(path, content=PICTURE), 400, "IMAGE_EMPTY")
    failed(await http.post(path, files={"image": b""}), 400, "IMAGE_EMPTY")
    for said in ("much", "1.1", "-0.1", "nan", "inf", "0.4.5", "1e999", "45%"):
        data = {"min_confidence": said}
        answer = await http.post(path, files={"image": PICTURE}, data=data)
        failed(answer, 400, "INVALID_OPTION", "min_confidence", said)
    for said in ("0", "1", "0.45", "", " 0,5 ", "4.5e-1"):
        data = {"min_confidence": said}
        fits(await http.post(path, files={"image": PICTURE}, data=data), 200)
    broken = {"content-type": "multipart/form-data; boundary=b"}
    for body in (b"--b", b"", b"--b\r\nContent-Disposition: nonsense\r\n\r\nx\r\n--b--"):
        answer = await http.post(path, content=body, headers=broken)
        assert answer.status_code == 400
        assert answer.json()["success"] is False
    answer = await http.post(path, content=b"x", headers={"content-type": "multipart/form-data"})
    assert answer.json()["success"] is False
    failed(await http.post("/v1/vision/custom/..%2Fx", files={"image": PICTURE}), 400,
           "INVALID_MODEL_REFERENCE")  # fmt: skip
    failed(await http.post("/v1/vision/face", files={"image": PICTURE}), 404, "MODEL_NOT_FOUND")
    worker.on_infer = QueueFull("8 wait", retry_after_s=0.2)
    busy = await http.post(path, files={"image": PICTURE})
    failed(busy, 429, "QUEUE_FULL")
    assert busy.headers["retry-after"] == "1"
    worker.on_infer = RuntimeError("a surprise")  # type: ignore[assignment]
    surprise = await http.post(path, files={"image": PICTURE})
    assert surprise.status_code >= 500
    assert "a surprise" not in surprise.text
    worker.on_infer = None
    worker.found.classification.top.add(class_name="cat")
    failed(await http.post(path, files={"image": PICTURE}), 400, "INVALID_OPTION", "no boxes")


async def test_a_picture_that_is_too_large_is_refused_in_its_form(tmp_path: Path) -> None:
    async with Rig(tmp_path, max_image_bytes=1000) as rig:
        await rig.worker("w1")
        await rig.ready("a")
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            large = await http.post("/v1/vision/detection", files={"image": bytes(2000)})
            failed(large, 413, "IMAGE_TOO_LARGE")
            huge = await http.post("/v1/vision/detection", files={"image": bytes(3_000_000)})
            failed(huge, 413, "MESSAGE_TOO_LARGE")


async def test_a_camera_that_hangs_up_cancels_its_request(
    rig: Rig, worker: ScriptedWorker, http: httpx.AsyncClient
) -> None:
    worker.infer_s = 60.0
    with pytest.raises(httpx.ReadTimeout):  # Frigate waits for a tenth of a second
        await http.post("/v1/vision/detection", files={"image": PICTURE}, timeout=0.3)
    await becomes(lambda: worker.cancelled == 1)


async def test_the_probes_of_blue_iris_are_answered(http: httpx.AsyncClient) -> None:
    for path in ("/v1/status/ping", "/v1/status/updateavailable"):
        assert fits(await http.get(path), 200)["success"] is True

"""Health by gRPC and HTTP, of the process and of single models, on a real control plane."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.gateway.health import grpc_health
from tests.contract.control_plane_rig import Rig
from tests.waiting import becomes
from yolopool.errors import QueueFull
from yolopool.v1 import model_pb2

STATUS = health_pb2.HealthCheckResponse.ServingStatus


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


@pytest.fixture
async def stub(rig: Rig) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def get(rig: Rig, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
        return await http.get(path)


async def check(stub: Any, service: str) -> str:
    """The status, or the code of the refusal."""
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return str(STATUS.Name(answer.status))


class Watching:
    """The statuses that a watcher is told, in order."""

    def __init__(self, stub: Any, service: str) -> None:
        self.told: list[str] = []
        self._call = stub.Watch(health_pb2.HealthCheckRequest(service=service))
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for answer in self._call:
            self.told.append(STATUS.Name(answer.status))

    async def until(self, status: str) -> None:
        await becomes(lambda: self.told[-1:] == [status], 10)

    async def ended(self) -> None:
        """Of itself."""
        await asyncio.wait_for(self._task, 10)

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def ready(rig: Rig, model: str) -> tuple[int, str]:
    """Status and reason of the model's readiness by HTTP."""
    answer = await get(rig, f"/v1/models/{model}/ready")
    told = answer.json()
    if answer.status_code == 200:
        assert told == {"model": model, "ready": True}
    else:
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, told.get("reason", "")


async def test_a_model_from_its_registration_to_its_end(rig: Rig, stub: Any) -> None:
    watching = Watching(stub, "model/shapes")
    await watching.until("SERVICE_UNKNOWN")
    assert await check(stub, "model/shapes") == "NOT_FOUND"
    assert await ready(rig, "shapes") == (404, "MODEL_NOT_FOUND")

    await rig.register("shapes")
    await watching.until("NOT_SERVING")
    assert await ready(rig, "shapes") == (503, "MODEL_NOT_READY")  # is still to be imported
    await rig.import_next()
    assert await ready(rig, "shapes") == (503, "NO_WORKER")
    worker = await rig.worker("w1")
    assert await ready(rig, "shapes") == (503, "MODEL_NOT_LOADED")
    assert await check(stub, "model/shapes@1") == "NOT_SERVING"

    await rig.load("shapes")
    await watching.until("SERVING")
    for name in ("shapes", "shapes@1"):
        assert await ready(rig, name) == (200, "")
        assert await check(stub, f"model/{name}") == "SERVING"
    # It says what it says: now a Detect is answered without a load.
    await rig.detect("shapes")
    assert len(worker.assigned) == 1
    # To be busy is not to be away.
    worker.on_infer = QueueFull("too much to do")
    assert await ready(rig, "shapes") == (200, "")

    await worker.die()
    await watching.until("NOT_SERVING")
    assert (await ready(rig, "shapes"))[0] == 503
    request = model_pb2.DeleteModelRequest(model="shapes")
    await rig.models.DeleteModel(request, timeout=10)
    await watching.until("SERVICE_UNKNOWN")
    assert watching.told == [
        "SERVICE_UNKNOWN", "NOT_SERVING", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN",
    ]  # fmt: skip
    await watching.close()


async def test_names_that_are_none(rig: Rig, stub: Any) -> None:
    for name in ("model/", "model/UPPER", "model/a@0", "nothing", "yolopool.v1.Nothing"):
        assert await check(stub, name) == "NOT_FOUND", name
    assert await ready(rig, "UPPER") == (400, "INVALID_MODEL_REFERENCE")
    assert await ready(rig, "a@3") == (404, "MODEL_NOT_FOUND")
    watching = Watching(stub, "nothing")
    await watching.until("SERVICE_UNKNOWN")
    await watching.close()


async def test_services_are_watched_and_end_not_serving(rig: Rig, stub: Any) -> None:
    await rig.worker("w1")
    await rig.ready("shapes")
    await rig.load("shapes")
    watching = [Watching(stub, name) for name in ("", "", "model/shapes")]
    for one in watching:
        await one.until("SERVING")
    # One of two who watch the same leaves: the other is still told.
    await watching[0].close()
    await rig.plane.stop()
    for one in watching[1:]:
        await one.ended()
        assert one.told == ["SERVING", "NOT_SERVING"]


async def test_watchers_have_a_bound(rig: Rig, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_health, "MAX_WATCHERS", 2)
    watching = [Watching(stub, "model/a") for _ in range(2)]
    for one in watching:
        await one.until("SERVICE_UNKNOWN")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(aiter(stub.Watch(health_pb2.HealthCheckRequest(service="model/a"))))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await watching[0].close()

    async def is_let_in() -> bool:
        another = Watching(stub, "model/a")
        await asyncio.sleep(0.05)
        told = bool(another.told)
        await asyncio.gather(another.close(), return_exceptions=True)
        return told

    async with asyncio.timeout(10):
        while not await is_let_in():
            pass
    await watching[1].close()


async def test_pages_as_kubernetes_wants_them(rig: Rig) -> None:
    assert (await get(rig, "/livez")).text == "ok\n"
    assert (await get(rig, "/healthz")).text == "ok\n"
    answer = await get(rig, "/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")
    answer = await get(rig, "/readyz?verbose")
    assert answer.text.splitlines() == [
        "[+]registry ok",
        "[+]watches ok",
        "[+]drain ok",
        "[+]store ok",
        "[ ]workers not required: none is connected",
        "readyz check passed",
    ]
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_process_that_stops_says_so_and_ends_connections(tmp_path: Path) -> None:
    async with Rig(tmp_path, drain_grace_s=20) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        worker.infer_s = 1.0
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            await http.get("/livez")
            open_call = asyncio.create_task(http.post("/v1/detect?model=shapes", content=b"x"))
            await becomes(lambda: worker.inferred)
            stopping = asyncio.create_task(rig.plane.stop())
            await becomes(lambda: rig.plane.dispatch._calls.refusing)
            answer = await http.get("/readyz?verbose")
            assert answer.status_code == 503
            assert "[-]drain failed: this process stops" in answer.text
            assert answer.headers["connection"] == "close"
            assert (await http.get("/readyz?exclude=drain")).status_code == 200
            assert (await http.get("/livez")).status_code == 200
            # New calls are refused, and open ones get their answer.
            answer = await http.post("/v1/detect?model=shapes", content=b"x")
            assert (answer.status_code, answer.json()["reason"]) == (503, "DRAINING")
            assert answer.json()["retryable"]
            assert (await open_call).status_code == 200
        await stopping


async def test_it_is_not_ready_before_another_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Rig(tmp_path) as rig:
        resign, resigning, may_resign = rig.plane._election.resign, asyncio.Event(), asyncio.Event()

        async def slowly() -> None:
            resigning.set()
            await may_resign.wait()
            await resign()

        monkeypatch.setattr(rig.plane._election, "resign", slowly)
        stopping = asyncio.create_task(rig.plane.stop())
        await resigning.wait()
        assert (await get(rig, "/readyz")).status_code == 503
        assert (await get(rig, "/v2/health/ready")).status_code != 200
        async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
            assert await check(health_pb2_grpc.HealthStub(channel), "") == "NOT_SERVING"
        # Until callers know, they are answered.
        assert (await get(rig, "/v1/models")).status_code == 200
        may_resign.set()
        await stopping

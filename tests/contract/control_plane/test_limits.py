"""What all callers together may take of a control plane, and what is no message."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool

from control_plane.gateway.kserve import grpc_door
from control_plane.services import events
from control_plane.services.register import SERVICES
from control_plane.store import bounds
from tests.contract.control_plane.test_streams import Talk
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.status import error_from_rpc
from yolopool.v1 import (
    aliases_pb2,
    detection_pb2,
    events_pb2,
    membership_pb2,
    model_pb2,
    schedule_pb2,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUDGET = 1_000_000
HALF = b"\xff" * (BUDGET // 2 - 1000)
SMALL = b"\xff" * 50_000


class Setting:
    def __init__(self, rig: Rig, worker: ScriptedWorker) -> None:
        self.rig, self.worker = rig, worker

    @property
    def budget(self) -> ByteBudget:
        return self.rig.plane._budget


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    folder = tmp_path_factory.mktemp("limits")
    async with Rig(folder, max_request_memory_bytes=BUDGET, max_streams=3) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.detect("shapes", encoded=SMALL)
        yield Setting(rig, worker)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def all_is_given_back(setting: Setting) -> AsyncIterator[None]:
    setting.worker.infer_s = 0.0
    yield
    await becomes(lambda: setting.budget.taken_bytes == 0)


async def held(setting: Setting, count: int) -> list[asyncio.Task[Any]]:
    """Detects that are in progress, with half of the budget each."""
    setting.worker.infer_s = 60.0
    detect = setting.rig.detect
    calls = [asyncio.create_task(detect("shapes", 60, encoded=HALF)) for _ in range(count)]
    await becomes(lambda: setting.budget.taken_bytes > count * len(HALF))
    return calls


async def ended(calls: list[asyncio.Task[Any]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


# --- bytes ----------------------------------------------------------------------------------------


async def test_one_budget_holds_for_every_door(setting: Setting) -> None:
    rig, calls = setting.rig, await held(setting, 2)
    try:
        error = await refused(rig.detect("shapes", encoded=HALF))
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_MEMORY_FULL")
        assert (error.retryable, error.retry_after_s) == (True, 1.0)
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            answer = await http.post("/v1/detect?model=shapes", content=HALF)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["reason"] == "REQUEST_MEMORY_FULL"
        talk = await Talk(rig).open()
        await talk.put(encoded=HALF)
        assert (await talk.read()).error.reason == "REQUEST_MEMORY_FULL"
        talk.call.cancel()
        # What is small is let in: otherwise nobody could look, and workers would be lost.
        setting.worker.infer_s = 0.0
        assert (await rig.detect("shapes", encoded=SMALL)).detections
    finally:
        await ended(calls)
    await becomes(lambda: setting.budget.taken_bytes == 0)
    assert (await rig.detect("shapes", encoded=HALF)).detections


async def test_a_stream_waits_for_room_for_its_next_frame(setting: Setting) -> None:
    talk = await Talk(setting.rig, window=8).open()
    await talk.put(encoded=HALF)
    assert (await talk.read()).WhichOneof("outcome") == "response"
    calls = await held(setting, 2)
    setting.worker.infer_s = 0.0
    # Room for the second was kept no longer than for a moment.
    await becomes(lambda: setting.budget.taken_bytes < 2 * len(HALF) + 1000)
    sending = asyncio.create_task(talk.put(encoded=HALF))
    await asyncio.sleep(0.1)
    await ended(calls)
    await sending
    answer = await talk.read()
    assert answer.WhichOneof("outcome") == "response"
    assert await talk.rest() == []


async def test_an_answer_that_nobody_reads_keeps_no_image(setting: Setting) -> None:
    talk = await Talk(setting.rig, window=8).open()
    for _ in range(4):
        await talk.put(encoded=SMALL)
    inferred = len(setting.worker.inferred)
    await becomes(lambda: len(setting.worker.inferred) >= inferred)
    await becomes(lambda: setting.budget.taken_bytes < len(SMALL))
    assert len(await talk.rest()) == 4


async def test_streams_beyond_the_limit_are_refused(setting: Setting) -> None:
    talks = [await Talk(setting.rig).open() for _ in range(3)]
    for talk in talks:
        await talk.put(encoded=SMALL)
        await talk.read()
    error = await (await Talk(setting.rig).open()).failed()
    assert (error.reason, error.retry_after_s) == ("TOO_MANY_STREAMS", 1.0)
    for talk in talks:
        assert await talk.rest() == []
    assert await (await Talk(setting.rig).open()).rest() == []


# --- what is no message ---------------------------------------------------------------------------

WORKER = "yolopool.v1.WorkerService"
METHODS = [
    method
    for service in (*SERVICES, grpc_door.SERVICE, "grpc.health.v1.Health", WORKER)
    for method in descriptor_pool.Default().FindServiceByName(service).methods
]


async def test_what_is_no_message_is_the_callers_fault_by_every_method(setting: Setting) -> None:
    """On the ports of control planes and of workers."""
    rig, data = setting.rig, b"\xff\xff\xff"
    async with (
        grpc.aio.insecure_channel(rig.addresses.grpc) as plane,
        grpc.aio.insecure_channel(setting.worker.address) as worker,
    ):
        for method in METHODS:
            service = method.containing_service.full_name
            channel: Any = worker if service == WORKER else plane
            sends, answers = method.client_streaming, method.server_streaming
            words = ("unary", "stream")
            path, kind = f"/{service}/{method.name}", f"{words[sends]}_{words[answers]}"
            call = getattr(channel, kind)(path)(iter([data]) if sends else data, timeout=20)
            error = await refused(call.read() if answers else call)
            found = (error.code, error.reason, error.retryable)
            assert found == ("INVALID_ARGUMENT", "INVALID_MESSAGE", False), path
            assert path in error.message


# --- callers --------------------------------------------------------------------------------------


async def test_one_address_has_so_many_connections(tmp_path: Path) -> None:
    async with Rig(tmp_path, http_max_connections_an_address=2) as rig:
        host, _, port = rig.addresses.http.rpartition(":")

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return reader, writer

        async def status(reader: asyncio.StreamReader) -> bytes:
            return (await reader.readuntil(b"\r\n")).split()[1]

        held = [await connect() for _ in range(2)]
        assert [await status(reader) for reader, _ in held] == [b"200", b"200"]
        beyond, writer = await connect()
        assert await status(beyond) == b"429"
        writer.close()
        held[0][1].close()

        async def has_room() -> bool:
            reader, writer = await connect()
            found = await status(reader)
            writer.close()
            return found == b"200"

        async with asyncio.timeout(20):
            while not await has_room():
                pass
        held[1][1].close()


async def test_a_request_without_a_deadline_has_one(tmp_path: Path) -> None:
    async with Rig(tmp_path, default_deadline_s=0.2) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        worker.infer_s = 60.0
        request = detection_pb2.DetectRequest(model="shapes", encoded=SMALL)
        error = await refused(rig.detection.Detect(request))
        assert error.code == "DEADLINE_EXCEEDED"


async def test_so_many_callers_wait_for_different_events(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_READS", 1)
    follow = setting.rig.events.WatchEvents(events_pb2.WatchEventsRequest(follow=True))
    first = (await follow.read()).id
    other = setting.rig.events.WatchEvents(events_pb2.WatchEventsRequest(follow=True, after=first))
    try:
        # The one that is ahead waits; this one is told what it missed, and finds no place.
        monkeypatch.setattr(events, "MAX_READS", 0)
        error = await refused(_all_of(other))
        assert error.reason == "RESOURCE_EXHAUSTED"
    finally:
        follow.cancel()
        other.cancel()


async def _all_of(call: Any) -> None:
    while await asyncio.wait_for(call.read(), 20) is not grpc.aio.EOF:
        pass


# --- the registry ---------------------------------------------------------------------------------


async def test_the_registry_holds_so_much_and_no_more(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = setting.rig

    async def fits(name: str, most: int, call: Any) -> str:
        """Nothing if the call is served with the limit, and the reason why it is not beyond it."""
        with monkeypatch.context() as patch:
            patch.setattr(bounds, name, most)
            try:
                await call
            except grpc.RpcError as error:
                return error_from_rpc(error).reason
            return ""

    versions, models = len(rig.plane.view.desired.versions), len(rig.plane.view.catalogue.models)
    assert await fits("MAX_VERSIONS", versions, rig.register("a")) == "REGISTRY_FULL"
    assert await fits("MAX_MODELS", models, rig.register("a")) == "REGISTRY_FULL"
    assert await fits("MAX_MODELS", models + 1, rig.register("a")) == ""
    assert await fits("MAX_MODELS", models + 1, rig.register("a", b"more")) == ""
    assert await fits("MAX_VERSIONS_A_MODEL", 2, rig.register("a")) == "REGISTRY_FULL"
    assert await fits("MAX_VERSIONS_A_MODEL", 3, rig.register("a", b"again")) == ""

    def schedule(name: str) -> Any:
        change = model_pb2.ChangeoverRequest(prepare=[model_pb2.LoadModelRequest(model="shapes")])
        one = schedule_pb2.Schedule(name=name, cron="0 8 * * *", change=change)
        request = schedule_pb2.SetScheduleRequest(schedule=one)
        return rig.schedules.SetSchedule(request, timeout=10)

    assert await fits("MAX_SCHEDULES", 1, schedule("one")) == ""
    assert await fits("MAX_SCHEDULES", 1, schedule("one")) == ""  # it is there already
    assert await fits("MAX_SCHEDULES", 1, schedule("two")) == "REGISTRY_FULL"

    def alias(name: str) -> Any:
        request = aliases_pb2.PromoteModelRequest(model="shapes", alias=name)
        return rig.aliases.PromoteModel(request, timeout=10)

    assert await fits("MAX_ALIASES", 1, alias("one")) == ""
    assert await fits("MAX_ALIASES", 1, alias("one")) == ""
    assert await fits("MAX_ALIASES", 1, alias("two")) == "REGISTRY_FULL"
    worker = setting.worker.report()
    join = membership_pb2.JoinRequest(worker=worker)
    workers = len(rig.plane.view.workers)
    assert await fits("MAX_WORKERS", workers, rig.membership.Join(join, timeout=10)) == ""
    worker.id = "w2"
    join = membership_pb2.JoinRequest(worker=worker)
    beyond = await fits("MAX_WORKERS", workers, rig.membership.Join(join, timeout=10))
    assert beyond == "REGISTRY_FULL"

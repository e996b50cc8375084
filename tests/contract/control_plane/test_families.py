"""Families on a real control plane: set, chosen by queue and time of day at every door, and seen by
whom. The workers take their turns as a device does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.types.access.api_key import Role
from tests.contract.control_plane.test_kserve import asked
from tests.contract.control_plane.test_schedules import Wall
from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.contract.guarded_rig import Guarded, issued
from tests.waiting import becomes
from yolopool import errors
from yolopool.client.async_client import AsyncClient
from yolopool.kserve import grpc_service_pb2_grpc
from yolopool.v1 import detection_pb2, families_pb2, model_pb2, types_pb2

RUNS_S = {"n": 0.004, "s": 0.030, "m": 0.075}
EVENING = datetime(2026, 11, 20, 21, 0, tzinfo=UTC).timestamp()


class Device(ScriptedWorker):
    """Runs one request after the other, each as long as its size takes, and reports its queue."""

    def __init__(self, name: str, models: int = 4) -> None:
        super().__init__(name, models)
        self._free_s = 0.0
        self.waiting = 0
        self._held_s: float | None = None
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.too_late: set[str] = set()

    async def Assign(self, request: Any, context: Any) -> Any:
        self.inference_ms = RUNS_S.get(request.version.model, 0.001) * 1000
        return await super().Assign(request, context)

    async def Infer(self, request: Any, context: Any) -> Any:
        name = request.version.model
        if name in self.too_late:
            raise errors.DeadlineUnmeetable(f"{name} would be late")
        now = self._now()
        begins_s = max(now, self._free_s)
        self._free_s = ends_s = begins_s + RUNS_S.get(name, 0.001)
        self.waiting += 1
        await self._goes_on.wait()
        await asyncio.sleep(ends_s - now)
        self.waiting -= 1
        answer = await super().Infer(request, context)
        answer.load.MergeFrom(self._load())
        answer.result.timing.queue_ms = (begins_s - now) * 1000
        answer.result.timing.inference_ms = RUNS_S.get(name, 0.001) * 1000
        return answer

    def hold(self) -> None:
        """Its time stands still: what comes from now on comes at once, however slow the machine."""
        self._held_s = self._now()
        self._goes_on.clear()

    def go_on(self) -> None:
        self._held_s = None
        self._goes_on.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._held_s is None else self._held_s

    def report(self) -> Any:
        told = super().report()
        told.load.MergeFrom(self._load())
        return told

    def _load(self) -> types_pb2.LoadReport:
        left_s = max(0.0, self._free_s - self._now())
        return types_pb2.LoadReport(outstanding=self.waiting, estimated_wait_ms=left_s * 1000)


async def device_of(rig: Rig) -> Device:
    device = Device("w")
    await device.start(rig.addresses.grpc)
    rig._stack.push_async_callback(device.die)
    return device


@pytest.fixture
def wall() -> Wall:
    return Wall(EVENING)


@pytest.fixture
async def rig(tmp_path: Path, wall: Wall) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, clock=wall.clock) as one:
        await one.ready("n", "s", "m", "b")
        yield one


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(rig.addresses.grpc) as one:
        yield one


async def loaded(rig: Rig, device: Device, *names: str) -> None:
    await becomes(lambda: {f"{name}@1" for name in names} <= set(device.replicas))
    await becomes(
        lambda: all(
            any(one.state == "HOT" for _, one in rig.plane.view.replicas(key))
            for key in rig.plane.view.desired.versions
            if key.model in names
        )
    )


async def test_a_family_is_set_shown_and_removed(rig: Rig, client: AsyncClient) -> None:
    device = await device_of(rig)
    made = await client.set_family("site:any", ["n", "s", "m"], why="one camera for all")
    assert [one.version for one in made.members] == ["n@1", "s@1", "m@1"]
    await loaded(rig, device, "n", "s", "m")
    shown = await client.family("site:any")
    assert [(one.loaded, one.first_choice) for one in shown.members] == [
        (1, False),
        (1, False),
        (1, True),
    ]
    assert all(one.answer_ms > 0 for one in shown.members)
    assert (shown.task, shown.until_unix_s, shown.revision) == ("detect", 0.0, 1)
    # A repeat changes nothing, and others see it as an alias.
    assert (await client.set_family("site:any", ["n", "s", "m"])).revision == 1
    (listed,) = await client.aliases()
    assert (listed.name, listed.family, listed.targets) == ("site:any", ("n", "s", "m"), {})
    (change,) = (await client.alias("site:any")).history
    assert (change.kind, change.why) == ("FAMILY", "n, s, m: one camera for all")
    with pytest.raises(errors.AliasChanged, match="revision 1, not 7"):
        await client.set_family("site:any", ["n", "s"], expected_revision=7)
    with pytest.raises(errors.AliasChanged, match="is a family"):
        await client.set_alias("site:any", 1)
    with pytest.raises(errors.RolloutNotPossible, match="is a family"):
        await client.start_rollout("site:any", 1)
    with pytest.raises(errors.AliasNotFound):
        await client.family("n:any")
    with pytest.raises(errors.NothingToRollBack, match="is a family"):
        await client.rollback("site:any")
    await client.delete_alias("site:any")
    await asyncio.sleep(0.2)  # the recorder writes beside
    told = [event.message async for event in client.events(kinds=["ALIAS"])]
    assert told == [
        "site:any is now one of n, s, m: one camera for all, by anonymous",
        "site:any deleted, by anonymous; it was one of n, s, m",
    ]
    with pytest.raises(errors.ModelNotFound):
        await client.family("site:any")


async def test_what_does_not_fit_is_said(rig: Rig, client: AsyncClient) -> None:
    await client.set_alias("n:stable", 1)
    await client.set_family("site:any", ["n:stable", "s"], load=False)
    wrong: list[tuple[Any, dict[str, Any], type[errors.YolopoolError], str]] = [
        (["n"], {}, errors.InvalidFamily, "2 to 16"),
        (["n", "gone"], {}, errors.ModelNotFound, "gone"),
        (["n", "s@4"], {}, errors.VersionNotFound, "s@4"),
        (["n", "site:any"], {}, errors.InvalidFamily, "site:any can't be a member"),
        (["site:new", "n"], {}, errors.InvalidFamily, "site:new can't be a member"),
        (["site:other", "n"], {}, errors.ModelNotFound, "site"),
        ({"06:00": "n", "dusk": "s"}, {}, errors.InvalidFamily, "06:30"),
        ({"dawn": "n", "dusk": "s"}, {}, errors.InvalidFamily, "the place"),
        ({"dawn": "n", "sunset": "s"}, {"place": (52.5, 13.4)}, errors.InvalidSchedule, "dusk"),
        ({"06:00": "n", "22:00": "s"}, {"time_zone": "Berlin"}, errors.InvalidSchedule, "IANA"),
    ]
    for members, more, kind, says in wrong:
        with pytest.raises(kind, match=says):
            await client.set_family("site:new", members, **more)
    await client.set_family("site:hours", {"06:00": "site:any", "22:00": "b"}, load=False)
    with pytest.raises(errors.InvalidFamily, match="let the size decide"):
        await client.set_family("site:any", {"06:00": "n", "22:00": "s"})
    with pytest.raises(errors.AliasChanged, match="alias of versions"):
        await client.set_family("n:stable", ["n", "s"])


async def test_under_load_the_size_falls_and_every_request_is_answered(
    rig: Rig, client: AsyncClient
) -> None:
    device = await device_of(rig)
    await client.set_family("site:any", ["n", "s", "m"], within_s=1.0)
    await loaded(rig, device, "n", "s", "m")
    first = await rig.detect("site:any")
    assert (first.version.model, first.version.version) == ("m", 1)
    # Of 30 at once the device could run 13 of the largest in time.
    device.hold()
    burst = asyncio.gather(*(rig.detect("site:any", timeout=30) for _ in range(30)))
    await becomes(lambda: device.waiting == 30)
    device.go_on()
    answers = await burst
    counts = Counter(answer.version.model for answer in answers)
    assert 0 < counts["m"] <= 13
    assert counts["n"] > 0
    # Who has no time at all gets the smallest, and who has much the largest, whatever stood before.
    assert (await rig.detect("site:any", timeout=30)).version.model in RUNS_S
    await client.set_family("site:any", ["n", "s", "m"])
    assert (await rig.detect("site:any", timeout=300)).version.model == "m"


async def test_a_size_that_a_worker_has_no_time_for_gives_way_within_the_request(
    rig: Rig, client: AsyncClient
) -> None:
    device = await device_of(rig)
    await client.set_family("site:any", ["n", "s", "m"])
    await loaded(rig, device, "n", "s", "m")
    device.too_late = {"m", "s"}
    answer = await rig.detect("site:any", request_id="r-1")
    assert answer.version.model == "n"
    (trace,) = await client.explain_request("r-1")
    assert "m@1: DEADLINE_UNMEETABLE" in str(trace)
    device.too_late = {"n", "m", "s"}
    with pytest.raises(errors.DeadlineUnmeetable):
        await client.detect(b"jpeg", model="site:any")


async def test_every_door_takes_a_family(rig: Rig, client: AsyncClient) -> None:
    device = await device_of(rig)
    await client.set_family("site:any", ["n", "s"], load=False)
    assert device.assigned == []
    request = model_pb2.LoadModelRequest(model="site:any", wait=True)
    await rig.models.LoadModel(request, timeout=10)
    assert sorted(device.assigned) == ["n@1", "s@1"]
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
        shown = (await http.get("/v1/aliases/site:any/family")).json()
        assert [one["version"]["model"] for one in shown["members"]] == ["n", "s"]
        body = {"family": {"members": [{"model": "n"}, {"model": "s"}], "within_s": 0.5}}
        put = await http.put("/v1/aliases/site:any/family", json=body)
        assert put.json()["family"]["within_s"] == 0.5
        assert (await http.get("/v1/models/site:any/ready")).status_code == 200
        files = {"image": ("a.jpg", b"jpeg", "image/jpeg")}
        told = await http.post("/v1/detect", params={"model": "site:any"}, files=files)
        assert told.json()["version"] == {"model": "s", "version": 1}
    stream = [answer async for answer in client.detect_stream([b"jpeg"], model="site:any")]
    assert [one.detections and one.detections.model for one in stream] == ["s@1"]
    await client.unload("site:any")
    assert set(rig.plane.view.desired.wants) == set()


async def test_by_day_one_model_and_by_night_another(
    rig: Rig, client: AsyncClient, wall: Wall
) -> None:
    device = await device_of(rig)
    parts = {"dawn": "m", "dusk-15m": "b"}
    made = await client.set_family("site:day", parts, place=(52.52, 13.405))
    assert [one.first_choice for one in made.members] == [False, True]
    await loaded(rig, device, "m", "b")
    assert (await rig.detect("site:day")).version.model == "b"
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        for images in ([b"jpeg"], [b"jpeg", b"jpeg"]):
            device.inferred.clear()
            await stub.ModelInfer(asked(*images, model="site:day"), timeout=10)
            assert [one.version.model for one in device.inferred] == ["b"] * len(images)
    wall.set(made.until_unix_s)
    assert (await rig.detect("site:day")).version.model == "m"
    # The night's model gets a version with other classes: the day's answers until it is mended.
    noon = EVENING + 15 * 3600
    wall.set(noon + 8 * 3600)
    assert (await rig.detect("site:day")).version.model == "b"
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="b"), timeout=5)
    assert (await rig.detect("site:day")).version.model == "m"
    assert "no model 'b'" in (await client.family("site:day")).members[1].left_out


async def test_a_family_is_for_who_sees_all_of_its_members(tmp_path: Path) -> None:
    async with Guarded(tmp_path) as rig:
        kinds = {
            "all": issued(Role.OPERATE, ("site", "a*")),
            "a part": issued(Role.OPERATE, ("site", "a1")),
        }
        for kind, (key, secret) in kinds.items():
            await rig.registry.put_api_key(key)
            rig.texts[kind] = secret.text
        async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
            for name in ("a1", "a2"):
                weights = tmp_path / f"{name}.pt"
                weights.write_bytes(name.encode())
                await admin.register(name, weights, wait=False)
            await rig.import_all(2)
            worker = ScriptedWorker("w", 2)
            worker.metadata = (("authorization", f"Bearer {rig.secret('worker')}"),)
            await worker.start(rig.addresses.grpc)
            rig._stack.push_async_callback(worker.die)
            await admin.set_family("site:any", ["a1", "a2"])
            await becomes(lambda: {"a1@1", "a2@1"} <= set(worker.replicas))
            detect = "/yolopool.v1.DetectionService/Detect"
            request = detection_pb2.DetectRequest(model="site:any", encoded=b"jpeg")
            answer = await rig.call(detect, request, "all", 10)
            assert answer.version.model in ("a1", "a2")
            asked: list[tuple[str, Any]] = [
                (detect, request),
                ("ModelService/GetModel", model_pb2.GetModelRequest(model="site:any")),
                ("ModelService/LoadModel", model_pb2.LoadModelRequest(model="site:any")),
                ("FamilyService/GetFamily", families_pb2.GetFamilyRequest(alias="site:any")),
            ]
            for method, about in asked:
                path = method if method.startswith("/") else f"/yolopool.v1.{method}"
                with pytest.raises(errors.ModelNotFound) as hidden:
                    await rig.call(path, about, "a part")
                assert "a2" not in hidden.value.message
            for kind, seen in (("all", 1), ("a part", 0), ("not granted", 0)):
                async with AsyncClient(rig.addresses.grpc, rig.secret(kind)) as caller:
                    assert len(await caller.aliases()) == seen
            async with AsyncClient(rig.addresses.grpc, rig.secret("a part")) as caller:
                with pytest.raises(errors.ModelNotFound):
                    await caller.set_family("site:other", ["a1", "a2"])

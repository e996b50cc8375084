"""Tenants on real control planes: limits by every door, what workers are told, usage, deletion."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.tenants.exchange import days_until
from control_plane.types.access.api_key import Role
from control_plane.types.access.tenant import Tenant as HeldTenant
from control_plane.types.access.usage import Usage
from control_plane.types.rollout.alias import Alias, Target
from control_plane.types.sources.watch import Watch
from tests.contract.control_plane.test_kserve import asked
from tests.contract.control_plane_rig import ScriptedWorker
from tests.contract.guarded_rig import Guarded, issued
from tests.waiting import becomes
from yolopool.client.access.tenant_records import Tenant
from yolopool.client.async_client import AsyncClient
from yolopool.errors import (
    CredentialsInvalid,
    FailedPrecondition,
    GrantNeeded,
    InvalidOption,
    RegistryUnavailable,
    TenantConcurrency,
    TenantDay,
    TenantRate,
    TenantStore,
    YolopoolError,
)
from yolopool.kserve import grpc_service_pb2_grpc
from yolopool.status import error_from_rpc
from yolopool.transport import bearer
from yolopool.v1 import detection_pb2, detection_pb2_grpc, model_pb2, types_pb2

KINDS = {
    "north": issued(Role.DETECT, tenant="north"),
    "south": issued(Role.DETECT, tenant="south"),
    "north operator": issued(Role.OPERATE, ("north/*",), tenant="north"),
}


class Tenanted(Guarded):
    """Its callers are of tenants; the worker `w1` holds `north/a` and `free`."""

    def __init__(self, folder: Path) -> None:
        # No worker is lost here, also where the machine stands still for a moment.
        super().__init__(folder, lease_s=10.0)
        self.kinds |= KINDS

    async def __aenter__(self) -> "Tenanted":
        await super().__aenter__()
        self.admin = AsyncClient(self.addresses.grpc, self.secret("admin"))
        self._stack.push_async_callback(self.admin.close)
        self.channel = grpc.aio.insecure_channel(self.addresses.grpc)
        self._stack.push_async_callback(self.channel.close)
        self.quotas = self.plane._services.quotas
        return self

    async def give(self, tenant: Tenant) -> None:
        await self.admin.set_tenant(tenant)

    async def detect_as(self, kind: str, model: str = "free", **fields: Any) -> Any:
        request = detection_pb2.DetectRequest(model=model, encoded=b"jpeg", **fields)
        stub: Any = detection_pb2_grpc.DetectionServiceStub(self.channel)
        return await stub.Detect(request, timeout=10, metadata=bearer(self.secret(kind)))

    async def stream_as(self, kind: str, frames: int, timeout_ms: int) -> list[Any]:
        async def messages() -> AsyncIterator[detection_pb2.DetectStreamRequest]:
            opening = detection_pb2.StreamOpening(model="free", frame_timeout_ms=timeout_ms)
            yield detection_pb2.DetectStreamRequest(opening=opening)
            for number in range(frames):
                frame = detection_pb2.StreamFrame(frame_id=number, encoded=b"jpeg")
                yield detection_pb2.DetectStreamRequest(frame=frame)

        stub: Any = detection_pb2_grpc.DetectionServiceStub(self.channel)
        call = stub.DetectStream(messages(), metadata=bearer(self.secret(kind)))
        return [answer async for answer in call if answer.WhichOneof("outcome")]

    async def infer_as(self, kind: str, images: int, timeout: float = 10) -> Any:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)  # type: ignore[no-untyped-call,unused-ignore]
        request = asked(*[b"jpeg"] * images, model="free")
        return await stub.ModelInfer(request, timeout=timeout, metadata=bearer(self.secret(kind)))

    async def post_as(self, kind: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://{self.addresses.http}") as http:
            headers = {"authorization": f"Bearer {self.secret(kind)}"}
            return await http.post(
                "/v1/detect?model=free", content=b"jpeg",
                headers={**headers, "content-type": "image/jpeg"},
            )  # fmt: skip


async def error_of(call: Awaitable[Any]) -> YolopoolError:
    try:
        answer = await call
    except grpc.RpcError as error:
        return error_from_rpc(error)
    except YolopoolError as error:
        return error
    raise AssertionError(f"it was not refused: {answer}")


async def worker_of(rig: Tenanted) -> ScriptedWorker:
    """Registered, imported and loaded by the admin, with the worker's own key."""
    one = ScriptedWorker("w1", 4)
    one.metadata = bearer(rig.secret("worker"))
    await one.start(rig.addresses.grpc)
    rig._stack.push_async_callback(one.die)
    for name in ("free", "north/a"):
        file = rig.settings.data_dir / name.replace("/", "-")
        file.write_bytes(name.encode())
        await rig.admin.register(name, file, wait=False)
    await rig.import_all(2)
    for name in ("free", "north/a"):
        await rig.admin.load(name)
    return one


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Tenanted]:
    async with Tenanted(tmp_path) as rig:
        yield rig


async def test_every_door_takes_of_one_quota(rig: Tenanted) -> None:
    await worker_of(rig)
    await rig.give(Tenant("north", images_per_day=7))
    await rig.detect_as("north")
    assert [one.WhichOneof("outcome") for one in await rig.stream_as("north", 2, 5000)] == [
        "response"
    ] * 2
    assert (await rig.post_as("north")).status_code == 200
    await rig.infer_as("north", 3)
    error = await error_of(rig.detect_as("north"))
    assert type(error) is TenantDay
    assert 0 < (error.retry_after_s or 0) <= 86_400
    answer = await rig.post_as("north")
    assert (answer.status_code, answer.json()["reason"]) == (429, "TENANT_DAY")
    assert int(answer.headers["retry-after"]) > 0
    assert type(await error_of(rig.infer_as("north", 1))) is TenantDay
    (frame,) = await rig.stream_as("north", 1, 5000)
    assert frame.error.reason == "TENANT_DAY"
    await rig.detect_as("south")  # others are not concerned
    await rig.quotas.once()
    (used,) = await rig.admin.usage("north")
    assert (used.images, used.refused, used.bytes) == (7, 4, 28)
    assert used.device_s == pytest.approx(0.014)


async def test_a_rate_is_refused_with_its_delay_and_paces_streams_and_batches(
    rig: Tenanted,
) -> None:
    await worker_of(rig)
    await rig.give(Tenant("north", requests_per_s=0.01))
    await rig.detect_as("north")
    error = await error_of(rig.detect_as("north"))
    assert type(error) is TenantRate
    assert 90 < (error.retry_after_s or 0) <= 100
    # A frame waits for its turn, which does not come in its time.
    (frame,) = await rig.stream_as("north", 1, 200)
    assert frame.error.reason in ("TENANT_RATE", "DEADLINE_EXCEEDED")
    assert type(await error_of(rig.infer_as("north", 3, timeout=1))) is TenantRate
    await rig.give(Tenant("south", requests_per_s=40.0))
    answers = await rig.stream_as("south", 60, 30_000)
    assert all(one.WhichOneof("outcome") == "response" for one in answers)
    await rig.infer_as("south", 20, timeout=30)


async def test_as_many_as_may_wait_for_answers(rig: Tenanted) -> None:
    worker = await worker_of(rig)
    await rig.give(Tenant("north", concurrent_requests=2))
    worker.infer_s = 30.0
    open_calls = [asyncio.ensure_future(rig.detect_as("north")) for _ in range(2)]
    await becomes(lambda: len(worker.inferred) == 2)
    assert type(await error_of(rig.detect_as("north"))) is TenantConcurrency
    for call in open_calls:
        call.cancel()
    await becomes(lambda: worker.cancelled == 2)
    worker.infer_s = 0.0
    for _ in range(3):
        await rig.detect_as("north")


async def test_workers_are_told_whose_a_request_is_and_no_priority_above_the_ceiling(
    rig: Tenanted,
) -> None:
    worker = await worker_of(rig)
    await rig.give(Tenant("north", weight=3.0, priority_ceiling="normal"))
    asked_for = (types_pb2.PRIORITY_INTERACTIVE, types_pb2.PRIORITY_UNSPECIFIED,
                 types_pb2.PRIORITY_BULK)  # fmt: skip
    for priority in asked_for:
        await rig.detect_as("north", priority=priority)
    await rig.detect_as("detect", priority=types_pb2.PRIORITY_INTERACTIVE)
    told = [(one.tenant, one.weight, one.priority) for one in worker.inferred]
    assert told == [
        ("north", 3.0, types_pb2.PRIORITY_NORMAL),
        ("north", 3.0, types_pb2.PRIORITY_NORMAL),
        ("north", 3.0, types_pb2.PRIORITY_BULK),
        ("", 1.0, types_pb2.PRIORITY_INTERACTIVE),
    ]


async def test_usage_is_metered_and_exported_with_few_labels(rig: Tenanted) -> None:
    await worker_of(rig)
    await rig.give(Tenant("north", models=("north/*",)))
    for kind in ("north", "south", "detect"):
        await rig.detect_as(kind)
    rig.quotas._looked_s = rig.plane._clock.monotonic() - 9.0
    await rig.quotas.once()
    used = {one.name: one for one in await rig.admin.usage(days=35)}
    assert {name: one.images for name, one in used.items()} == {"": 1, "north": 1, "south": 1}
    assert used["north"].gb_hours == pytest.approx(100 / 1e9 * 9 / 3600, rel=0.2)
    async with httpx.AsyncClient() as http:
        headers = {"authorization": f"Bearer {rig.secret('admin')}"}
        text = (await http.get(f"http://{rig.addresses.http}/metrics", headers=headers)).text
    for label in ("north", "(none)", "(other)"):  # south is not set
        assert f'yolopool_tenant_images_total{{tenant="{label}"}} 1.0' in text


# --- the store --------------------------------------------------------------------------------


async def test_files_of_a_tenants_models_are_within_its_bytes(rig: Tenanted) -> None:
    await rig.give(Tenant("north", models=("north/*",), store_bytes=10))
    files = {}
    for name in ("north/a", "north/b", "free"):
        files[name] = rig.settings.data_dir / name.replace("/", "-")
        files[name].write_bytes(name.encode())  # 7, 7 and 4 bytes
    await rig.admin.register("north/a", files["north/a"], wait=False)
    error = await error_of(rig.admin.register("north/b", files["north/b"], wait=False))
    assert (type(error), error.retryable) == (TenantStore, False)
    await rig.admin.register("north/b", files["north/a"], wait=False)  # the same bytes once more
    await rig.admin.register("free", files["north/b"], wait=False)
    async with AsyncClient(rig.addresses.grpc, rig.secret("north operator")) as operator:
        new = rig.settings.data_dir / "new"
        new.write_bytes(b"12345678")
        assert type(await error_of(operator.register("north/c", new, wait=False))) is TenantStore
    await rig.admin.delete("north/a")
    await rig.admin.delete("north/b")
    await rig.admin.register("north/b", files["north/b"], wait=False)


# --- deletion ---------------------------------------------------------------------------------


async def filled(rig: Tenanted) -> None:
    """North has two models (one with two versions), a key, schedules and usage; others too."""
    await rig.give(Tenant("north", models=("north/*",)))
    for name in ("north/a", "north/a", "north/b", "free"):
        file = rig.settings.data_dir / "file"
        file.write_bytes(name.encode() + b"!")
        await rig.admin.register(name, file, wait=False)
    await rig.admin.set_schedule("mine", "0 6 * * *", ["north/a"], ["north/b@1"])
    await rig.admin.set_schedule("mixed", "0 6 * * *", ["free", "north/a@1"])
    await rig.admin.set_schedule("others", "0 6 * * *", ["free"])
    for name in ("north/a", "free"):
        stable = Alias(name, "stable", (Target(1, 1000),), 600.0, 1.0)
        await rig.registry.put_alias(stable, 0)
        watch = Watch(name.replace("/", "."), "s3://bucket/m/", name)
        await SourceRecords(rig.registry).put_watch(watch)
    used = {"north": Usage(images=1), "south": Usage(images=2)}
    for number, day in enumerate(days_until(rig.plane._clock.unix(), 2)):
        await rig.registry.accounts.add_usage("p", number, day, used)


async def stands(rig: Tenanted) -> dict[str, Any]:
    desired = await rig.registry.desired()
    days = days_until(rig.plane._clock.unix(), 35)
    return {
        "tenants": sorted(desired.tenants),
        "models": sorted({key.model for key in desired.versions}),
        "aliases": sorted(map(str, desired.aliases)),
        "watches": sorted(desired.watches),
        "schedules": {name: sorted(one.change.models) for name, one in desired.schedules.items()},
        "keys": sorted(
            kind for kind in KINDS if not desired.api_keys[rig.kinds[kind][0].id].revoked_unix_s
        ),
        "usage": {name for of in (await rig.registry.accounts.usage(days)).values() for name in of},
    }


LEFT = {
    "tenants": [],
    "models": ["free"],
    "aliases": ["free:stable"],
    "watches": ["free"],
    "schedules": {"mixed": ["free"], "others": ["free"]},
    "keys": ["south"],
    "usage": {"south"},
}


async def test_all_of_a_tenant_is_deleted_and_nothing_of_others(rig: Tenanted) -> None:
    await filled(rig)
    before = await stands(rig)
    assert type(await error_of(rig.admin.delete_tenant("north"))) is InvalidOption
    assert type(await error_of(rig.admin.delete_tenant("north", confirm="south"))) is InvalidOption
    shown = await rig.admin.delete_tenant("north", dry_run=True)
    assert await stands(rig) == before
    deleted = await rig.admin.delete_tenant("north", confirm="north")
    assert deleted == shown
    assert deleted.models == ("north/a@1", "north/a@2", "north/b@1")
    assert (deleted.schedules, deleted.changed_schedules) == (("mine",), ("mixed",))
    assert deleted.aliases == ("north/a:stable",)
    assert deleted.watches == ("north.a",)
    assert (len(deleted.keys), deleted.usage_days, deleted.existed) == (2, 2, True)
    assert await stands(rig) == LEFT
    assert type(await error_of(rig.detect_as("north"))) is CredentialsInvalid
    again = await rig.admin.delete_tenant("north", confirm="north")
    assert (again.keys, again.models, again.usage_days, again.existed) == ((), (), 0, False)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("step", range(1, 9))
async def test_a_deletion_that_is_interrupted_anywhere_is_gone_on_with(
    rig: Tenanted, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(rig)
    registry: Any = rig.registry
    writes, write, drop = 0, registry.write, registry.accounts.drop_usage

    async def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes == step:
            raise RegistryUnavailable("the store went away")
        return await write(*args, **kwargs)

    async def dropping(*args: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes == step:
            raise RegistryUnavailable("the store went away")
        return await drop(*args)

    monkeypatch.setattr(registry, "write", failing)
    monkeypatch.setattr(registry.accounts, "drop_usage", dropping)
    await error_of(rig.admin.delete_tenant("north", confirm="north"))
    assert "north" in (await stands(rig))["tenants"]  # it can be seen that there is more to do
    await rig.admin.delete_tenant("north", confirm="north")
    assert await stands(rig) == LEFT


async def test_the_last_admins_key_is_not_deleted_with_its_tenant(rig: Tenanted) -> None:
    key, _ = rig.kinds["admin"]
    for held in (await rig.registry.desired()).api_keys.values():
        if held.role is Role.ADMIN and held.id != key.id:
            await rig.registry.drop_api_key(held.id)
    await rig.registry.change_api_key(key.id, lambda one: replace(one, tenant="north"))
    await rig.registry.put_tenant(HeldTenant("north", ("north/*",)))
    await becomes(lambda: "north" in rig.plane.view.desired.tenants)
    error = await error_of(rig.admin.delete_tenant("north", confirm="north"))
    assert type(error) is FailedPrecondition


async def test_a_tenants_operator_places_on_its_own_workers_by_every_door(rig: Tenanted) -> None:
    """Once more than in the plan: the name of another's pool is refused when it is said."""
    await worker_of(rig)
    for name in ("north", "south"):
        await rig.give(Tenant(name, (f"{name}/*",), pool=f"pool-of-{name}"))
    kind, method = "north operator", "/yolopool.v1.ModelService/SetPlacement"

    def placed(**fields: Any) -> model_pb2.SetPlacementRequest:
        placement = types_pb2.Placement(**fields)
        return model_pb2.SetPlacementRequest(model="north/a", placement=placement)

    theirs, own = "pool-of-south", "pool-of-north"
    for request in (placed(pool=theirs), placed(labels={"pool": theirs}), placed(pool="nobodys")):
        assert isinstance(await error_of(rig.call(method, request, kind)), GrantNeeded)
    headers = {"authorization": f"Bearer {rig.secret(kind)}"}
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", headers=headers) as http:
        path = "/v1/models/north/a/placement"
        answer = await http.put(path, json={"pool": theirs})
        assert (answer.status_code, answer.json()["reason"]) == (403, "GRANT_NEEDED"), answer.text
        assert (await http.put(path, json={"pool": own})).status_code == 200
    await rig.call(method, placed(pool=own), kind)
    await rig.call(method, placed(), kind)
    await rig.call(method, placed(pool=theirs), "admin")

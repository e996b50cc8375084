"""Gates of models under a real control plane: versions are evaluated by its own Detect path, what
was found stays with them, and what fails is held back. And what stops a deletion.
"""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.models import surplus
from control_plane.store import bounds
from control_plane.validation import validator
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import AsyncClient, errors
from yolopool.v1 import (
    aliases_pb2,
    aliases_pb2_grpc,
    detection_pb2,
    events_pb2,
    model_pb2,
    rules_pb2,
    rules_pb2_grpc,
    schedule_pb2,
    types_pb2,
)

PENDING, PASSED, FAILED = (
    rules_pb2.GATE_STATE_PENDING,
    rules_pb2.GATE_STATE_PASSED,
    rules_pb2.GATE_STATE_FAILED,
)
# The left half of the upper half of each image, as the worker below finds it.
LABEL = "0 0.25 0.25 0.5 0.5"


class Gates(Rig):
    rules: Any
    aliases: Any
    channel: Any

    async def gate(
        self, model: str = "a", least: float = 0.6, files: dict[str, bytes | str] | None = None
    ) -> str:
        data = a_zip(
            files or {"one.jpg": b"1", "two.jpg": b"2", "one.txt": LABEL, "two.txt": LABEL}
        )
        await self.upload(data)
        digest = hashlib.sha256(data).hexdigest()
        gate = rules_pb2.Gate(data=digest, min_map50_95=least)
        await self.rules.SetGate(rules_pb2.SetGateRequest(model=model, gate=gate), timeout=5)
        return digest

    async def model(self, name: str = "a") -> Any:
        return (await self.models.GetModel(model_pb2.GetModelRequest(model=name), timeout=5)).model

    async def state(self, name: str) -> int:
        return int((await self.model(name)).versions[0].gate_state)

    async def promote(self, model: str, **more: Any) -> Any:
        request = aliases_pb2.PromoteModelRequest(model=model, alias="stable", **more)
        return await self.aliases.PromoteModel(request, timeout=5)

    async def delete(self, model: str, **more: Any) -> list[str]:
        request = model_pb2.DeleteModelRequest(model=model, **more)
        answer = await self.models.DeleteModel(request, timeout=5)
        return [f"{key.model}@{key.version}" for key in answer.deleted]


async def reaches(call: Callable[[], Awaitable[object]], value: object) -> None:
    """Waits until a call answers a value."""
    async with asyncio.timeout(30):
        while await call() != value:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def a_zip(files: Mapping[str, bytes | str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


def finds(worker: ScriptedWorker, right: float = 50.0) -> None:
    """It answers every image with one box, which is right if it ends at 50."""
    box = types_pb2.Box(x_min=0, y_min=0, x_max=right, y_max=50)
    one = detection_pb2.Detection(class_id=0, class_name="circle", confidence=0.9, box=box)
    worker.found = detection_pb2.DetectResponse(
        detections=[one], image_width=100, image_height=100, task="detect"
    )


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gates]:
    monkeypatch.setattr(validator, "TICK_S", 0.02)
    monkeypatch.setattr(validator, "RETRY_S", 0.05)
    monkeypatch.setattr(surplus, "PERIOD_S", 0.05)
    rig = Gates(tmp_path)
    async with rig, grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        rig.rules = rules_pb2_grpc.RuleServiceStub(channel)
        rig.aliases = aliases_pb2_grpc.AliasServiceStub(channel)
        yield rig


async def test_versions_pass_or_fail_and_what_fails_is_held_back(rig: Gates) -> None:
    worker = await rig.worker("w1")
    finds(worker)
    await rig.ready("a")
    data = await rig.gate()
    await reaches(lambda: rig.state("a@1"), PASSED)
    found = (await rig.model()).versions[0].validation
    assert (found.data, found.images, found.objects) == (data, 2, 2)
    assert found.map50_95 == pytest.approx(0.995)
    asked = worker.inferred[-1]
    assert asked.priority == types_pb2.PRIORITY_BULK
    assert asked.options.confidence == pytest.approx(0.001)
    await rig.promote("a@1")

    finds(worker, right=33.0)  # an overlap of two thirds: 4 of the 10 thresholds
    await rig.register("a", b"worse")
    await rig.import_next()
    assert (await rig.model()).default_version == 1  # not while nobody knows
    await reaches(lambda: rig.state("a@2"), FAILED)
    model = await rig.model()
    assert model.default_version == 1
    assert model.versions[0].validation.map50_95 == pytest.approx(0.995 * 0.4)
    assert model.gate.min_map50_95 == 0.6
    error = await refused(rig.promote("a@2"))
    assert (type(error), error.message.count("0.3980")) == (errors.ValidationFailed, 1)
    assert (await rig.detect("a")).version.version == 1
    assert (await rig.detect("a@2")).version.version == 2
    # Only for the gate it was loaded, and nobody is served by it... but for that last request.
    assert "a@2" in worker.released
    held = await rig.promote("a@2", ungated=True, force=True)
    assert [target.version for target in held.alias.targets] == [2]

    # A lower bar counts at once, by the results there are.
    gate = rules_pb2.Gate(data=data, min_map50_95=0.3)
    await rig.rules.SetGate(rules_pb2.SetGateRequest(model="a", gate=gate), timeout=5)
    assert (await rig.model()).default_version == 2
    kinds = [events_pb2.EVENT_KIND_VALIDATED]
    request = events_pb2.WatchEventsRequest(kinds=kinds)
    told = [(e.version.version, e.reason) async for e in rig.events.WatchEvents(request, timeout=5)]
    assert told == [(1, ""), (2, "VALIDATION_FAILED")]


async def test_what_can_not_be_evaluated_waits_or_fails_with_its_reason(rig: Gates) -> None:
    await rig.ready("a")
    await rig.gate()
    # No worker: it waits, and says so once.
    await reaches(lambda: rig.state("a@1"), PENDING)
    error = await refused(rig.promote("a@1"))
    assert (type(error), error.retryable) == (errors.ValidationPending, True)
    worker = await rig.worker("w1")
    worker.on_infer = errors.ImageNotDecodable("one.jpg is no picture")
    await reaches(lambda: rig.state("a@1"), FAILED)
    found = (await rig.model()).versions[0].validation
    assert (found.reason, found.images) == ("IMAGE_NOT_DECODABLE", 0)
    assert (await rig.model()).default_version == 1  # the only one answers all the same
    # Other images are another chance.
    worker.on_infer = None
    finds(worker)
    await rig.gate("a", 0.5, {"x/new.png": b"3", "x/new.txt": LABEL})
    await reaches(lambda: rig.state("a@1"), PASSED)


async def test_the_next_leader_goes_on(rig: Gates, tmp_path: Path) -> None:
    """Nothing but the record is carried over."""
    worker = await rig.worker("w1")
    finds(worker)
    worker.infer_s = 3600.0
    await rig.ready("a")
    await rig.gate()
    await becomes(lambda: len(worker.inferred) > 0)
    await rig.plane.stop()
    worker.infer_s = 0.0
    heir = Gates(tmp_path, rig.registry)
    async with heir:
        await worker.join(heir.addresses.grpc)
        await reaches(lambda: heir.state("a@1"), PASSED)


async def test_a_gate_that_is_none_is_refused(rig: Gates) -> None:
    await rig.ready("a")

    async def error_of(model: str, data: bytes, **least: float) -> errors.YolopoolError:
        await rig.upload(data)
        gate = rules_pb2.Gate(data=hashlib.sha256(data).hexdigest(), **least)
        request = rules_pb2.SetGateRequest(model=model, gate=gate)
        return await refused(rig.rules.SetGate(request, timeout=5))

    good = a_zip({"a.jpg": b"1", "a.txt": LABEL})
    least = {"min_map50_95": 0.5}
    assert type(await error_of("A", good, **least)) is errors.InvalidModelName
    for data, bound, says in (
        (good, {}, "min_map50_95 or min_map50"),
        (good, {"min_map50": 1.5}, "at most 1"),
        (good, {"min_map50": float("nan")}, "at most 1"),
        (b"no zip", least, "no zip"),
        (a_zip({"a.jpg": b"1"}), least, "no labels"),
        (a_zip({"a.jpg": b"1", "a.txt": "3 .5 .5 .1 .1"}), least, "has class 3"),
    ):
        error = await error_of("a", data, **bound)
        assert isinstance(error, errors.InvalidOption), error
        assert says in error.message
    gate = rules_pb2.Gate(data="0" * 64, min_map50=0.5)
    request = rules_pb2.SetGateRequest(model="a", gate=gate)
    assert type(await refused(rig.rules.SetGate(request, timeout=5))) is errors.ArtifactNotFound
    # Of a model that is not there yet the classes are not known.
    await rig.gate("new", 0.5, {"a.jpg": b"1", "a.txt": "3 .5 .5 .1 .1"})
    listed = await rig.rules.ListRules(rules_pb2.ListRulesRequest(), timeout=5)
    assert [rule.pattern for rule in listed.rules] == ["new"]
    await rig.rules.SetGate(rules_pb2.SetGateRequest(model="new"), timeout=5)
    assert not (await rig.rules.ListRules(rules_pb2.ListRulesRequest(), timeout=5)).rules


async def test_so_many_rules_fit_and_no_more(rig: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_RULES", 1)

    def keep(pattern: str) -> Any:
        request = rules_pb2.SetStoreRuleRequest(pattern=pattern, keep_versions=1)
        return rig.rules.SetStoreRule(request, timeout=5)

    await keep("a")
    await keep("a")
    assert type(await refused(keep("b"))) is errors.RegistryFull
    assert type(await refused(rig.gate("b"))) is errors.RegistryFull


async def test_the_images_of_a_gate_stay_in_the_store_as_long_as_it(rig: Gates) -> None:
    data = await rig.gate()
    sweep = model_pb2.SweepStoreRequest(grace_s=0, dry_run=True)
    found = (await rig.models.SweepStore(sweep, timeout=5)).files
    assert data not in {file.name for file in found}
    await rig.rules.SetGate(rules_pb2.SetGateRequest(model="a"), timeout=5)
    found = (await rig.models.SweepStore(sweep, timeout=5)).files
    assert data in {file.name for file in found}


async def test_the_client_sets_gates_and_rules_and_tells_of_them(
    rig: Gates, tmp_path: Path
) -> None:
    worker = await rig.worker("w1")
    finds(worker)
    await rig.ready("a")
    folder = tmp_path / "held_out"
    (folder / "labels").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "images" / "one.jpg").write_bytes(b"1")
    (folder / "labels" / "one.txt").write_text(LABEL)
    async with AsyncClient(rig.addresses.grpc) as client:
        rule = await client.set_gate("a", folder, min_map50=0.5)
        assert (rule.pattern, rule.gate and rule.gate.min_map50) == ("a", 0.5)
        again = await client.set_gate("a", folder, min_map50=0.5)
        assert again == rule  # the same files are the same upload

        async def state() -> str:
            return (await client.model("a")).versions[0].gate_state

        await reaches(state, "PASSED")
        version = (await client.model("a")).versions[0]
        assert version.validation is not None
        assert version.validation.map50 == pytest.approx(0.995)
        await client.set_store_rule("a*", keep_versions=3)
        kept = await client.set_store_rule("a*", store_bytes=10**9)
        assert (kept.keep_versions, kept.store_bytes, kept.used_bytes > 0) == (3, 10**9, True)
        assert [rule.pattern for rule in await client.rules()] == ["a", "a*"]
        assert (await client.clear_gate("a")).gate is None
        assert await state() == ""
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(errors.InvalidOption, match="0 images"):
            await client.set_gate("a", empty, min_map50=0.5)


# --- deletion, and how much is kept -----------------------------------------------------------


async def test_a_deletion_says_what_it_is_refused_by(rig: Gates) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.register("a", b"second")
    await rig.import_next()
    await rig.load("a@1", pin=True)
    change = model_pb2.ChangeoverRequest(
        prepare=[model_pb2.LoadModelRequest(model="a@1")], release=["a@2"]
    )
    day = schedule_pb2.Schedule(name="day", cron="0 6 * * *", change=change)
    await rig.schedules.SetSchedule(schedule_pb2.SetScheduleRequest(schedule=day), timeout=5)
    await rig.promote("a@2", force=True)

    error = await refused(rig.delete("a@1"))
    assert type(error) is errors.ModelReferenced
    assert error.details["references"] == "schedule day, a pin of a@1"
    error = await refused(rig.delete("a", force=True))
    assert error.details["references"] == "alias a:stable"
    assert len((await rig.model()).versions) == 2

    assert await rig.delete("a@1", force=True) == ["a@1"]
    get = schedule_pb2.GetScheduleRequest(name="day")
    left = (await rig.schedules.GetSchedule(get, timeout=5)).schedule.schedule.change
    assert (list(left.prepare), list(left.release)) == ([], ["a@2"])
    await becomes(lambda: "a@1" in worker.released)
    request = aliases_pb2.DeleteAliasRequest(alias="a:stable")
    await rig.aliases.DeleteAlias(request, timeout=5)
    # What only releases it is no reason to keep it.
    assert await rig.delete("a") == ["a@2"]


async def test_old_versions_go_once_nothing_needs_them(rig: Gates) -> None:
    await rig.worker("w1")
    for number in range(5):
        await rig.register("team/a", b"%d" % number)
        await rig.import_next()
    await rig.promote("team/a@1", force=True)
    request = rules_pb2.SetStoreRuleRequest(pattern="team/*", keep_versions=2)
    await rig.rules.SetStoreRule(request, timeout=5)

    async def left() -> list[int]:
        return [v.version.version for v in (await rig.model("team/a")).versions]

    await reaches(left, [5, 4, 1])
    await rig.aliases.DeleteAlias(aliases_pb2.DeleteAliasRequest(alias="team/a:stable"), timeout=5)
    unload = model_pb2.UnloadModelRequest(model="team/a@1")
    await rig.models.UnloadModel(unload, timeout=5)
    await reaches(left, [5, 4])


async def test_a_prefix_has_room_for_so_many_bytes(rig: Gates) -> None:
    request = rules_pb2.SetStoreRuleRequest(pattern="team/*", store_bytes=12)
    await rig.rules.SetStoreRule(request, timeout=5)
    await rig.register("team/a", b"12345")
    await rig.register("team/b", b"67890")
    await rig.register("team/c", b"12345")  # the same file counts once
    error = await refused(rig.register("team/d", b"abcde"))
    assert (type(error), error.retryable) == (errors.StoreQuota, False)
    assert error.details == {"pattern": "team/*", "used_bytes": "10", "limit_bytes": "12"}
    await rig.register("other/d", b"abcde")
    (rule,) = (await rig.rules.ListRules(rules_pb2.ListRulesRequest(), timeout=5)).rules
    assert (rule.store_bytes, rule.used_bytes) == (12, 10)
    assert await rig.delete("team/b") == ["team/b@1"]
    await rig.register("team/d", b"abcde")
    for wrong in ({}, {"keep_versions": 1001}, {"store_bytes": 2**60}):
        request = rules_pb2.SetStoreRuleRequest(pattern="team/*", **wrong)
        assert isinstance(
            await refused(rig.rules.SetStoreRule(request, timeout=5)), errors.InvalidOption
        )

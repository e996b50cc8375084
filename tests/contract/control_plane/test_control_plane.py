"""The control plane as its callers, workers and importers meet it: over real gRPC."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from control_plane.app import ControlPlane
from control_plane.gateway.dispatch import Caller
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.desired import Desired
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.full_disk import full_disk
from tests.waiting import becomes
from yolopool import errors
from yolopool.kserve import grpc_service_pb2, grpc_service_pb2_grpc
from yolopool.v1 import (
    detection_pb2,
    detection_pb2_grpc,
    fleet_pb2,
    importing_pb2,
    membership_pb2,
    model_pb2,
    model_pb2_grpc,
    types_pb2,
)

READY, FAILED = model_pb2.VERSION_STATE_READY, model_pb2.VERSION_STATE_FAILED


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


# --- artifacts -----------------------------------------------------------------------------------


async def test_upload_is_kept_under_its_digest(rig: Rig) -> None:
    answer = await rig.upload(b"some weights")
    assert (answer.complete, answer.received_bytes) == (True, 12)
    digest = hashlib.sha256(b"some weights").hexdigest()
    assert (rig.store / "artifacts" / digest).read_bytes() == b"some weights"
    again = await rig.upload(b"some weights")
    assert (again.complete, again.received_bytes) == (True, 12)


async def test_an_upload_that_found_no_room_is_resumed(rig: Rig) -> None:
    data = b"0123456789"
    with full_disk(7):
        error = await refused(rig.upload(data))
    assert isinstance(error, errors.DiskFull)
    assert error.details == {"place": str(rig.store)}
    assert error.details["place"] in error.message
    assert (await rig.upload(data, offset=7)).complete


async def test_a_broken_upload_is_resumed(rig: Rig) -> None:
    data = b"0123456789abcdef"
    header = model_pb2.UploadHeader(sha256=hashlib.sha256(data).hexdigest(), size_bytes=16)

    async def parts(*chunks: bytes) -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        yield model_pb2.UploadArtifactRequest(header=header)
        for chunk in chunks:
            yield model_pb2.UploadArtifactRequest(chunk=chunk)

    part = await rig.models.UploadArtifact(parts(data[:5], data[5:10]), timeout=5)
    assert (part.complete, part.received_bytes) == (False, 10)
    held = await rig.models.UploadArtifact(parts(), timeout=5)
    assert held.received_bytes == 10
    wrong = await refused(rig.upload(data, offset=5))
    assert isinstance(wrong, errors.InvalidOffset)
    assert wrong.details["received_bytes"] == "10"
    assert (await rig.upload(data, offset=10)).complete


async def test_a_wrong_digest_discards_what_was_held(rig: Rig) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    assert isinstance(await refused(rig.upload(b"some", digest=other)), errors.DigestMismatch)
    assert list((rig.store / "partial").iterdir()) == []
    assert isinstance(await refused(rig.upload(b"x", digest="XYZ")), errors.InvalidDigest)


async def test_too_large_is_refused_before_a_byte(tmp_path: Path) -> None:
    async with Rig(tmp_path, max_artifact_bytes=10) as rig:
        assert isinstance(await refused(rig.upload(b"0" * 11)), errors.ArtifactTooLarge)


# --- models ----------------------------------------------------------------------------------


async def test_register_import_ready(rig: Rig) -> None:
    registering = asyncio.create_task(rig.register("team/shapes", wait=True, source_name="s.pt"))
    job = await rig.import_next()
    assert job.artifact_uri.startswith("file://")
    assert job.source_name == "s.pt"
    version = await registering
    assert (version.state, version.task, version.version.version) == (READY, "detect", 1)
    assert version.settings.confidence == pytest.approx(0.25)
    listed = (await rig.models.ListModels(model_pb2.ListModelsRequest())).models
    assert [(m.name, m.default_version) for m in listed] == [("team/shapes", 1)]


async def test_a_failed_import_says_why_everywhere(rig: Rig) -> None:
    registering = asyncio.create_task(rig.register("bad", wait=True))
    await rig.import_next(importing_pb2.ImportFailure(reason="ARTIFACT_UNSAFE", message="code"))
    version = await registering
    assert (version.state, version.reason, version.message) == (FAILED, "ARTIFACT_UNSAFE", "code")
    for call in (rig.detect("bad"), rig.load("bad")):
        error = await refused(call)
        assert isinstance(error, errors.ModelImportFailed)
        assert "ARTIFACT_UNSAFE" in error.message


async def test_the_same_bytes_and_settings_are_imported_once(rig: Rig) -> None:
    await rig.ready("a")
    again = await rig.register("b", b"a")
    assert again.state == READY
    settings = types_pb2.VersionSettings(image_size=320)
    other = await rig.register("c", b"a", settings=settings)
    assert other.state == model_pb2.VERSION_STATE_UPLOADED


async def test_what_was_imported_since_it_was_registered_is_taken_over(rig: Rig) -> None:
    for name in ("a", "b", "c"):
        version = await rig.register(name, b"same")
        assert version.state == model_pb2.VERSION_STATE_UPLOADED
    await rig.register("d", b"same", class_names=["square"])
    jobs = [(await rig.import_next()).version.model for _ in range(2)]
    assert jobs == ["a", "d"]  # b and c are what a is; d has other names
    known = {
        one.name: one.versions[0]
        for one in (await rig.models.ListModels(model_pb2.ListModelsRequest())).models
    }
    assert {name: one.state for name, one in known.items()} == dict.fromkeys("abcd", READY)
    assert known["b"].settings == known["c"].settings == known["a"].settings


async def test_what_is_said_of_a_file_goes_to_its_import_and_to_whoever_asks(rig: Rig) -> None:
    told: dict[str, Any] = {"renamed_classes": {3: "nut"}, "metadata": {"args.yaml": "epochs: 3\n"}}
    registering = asyncio.create_task(rig.register("a", wait=True, **told))
    job = await rig.import_next()
    assert dict(job.renamed_classes) == {3: "nut"}
    assert dict((await registering).training) == {"epochs": "3"}
    (listed,) = (await rig.models.ListModels(model_pb2.ListModelsRequest())).models
    assert dict(listed.versions[0].metadata) == {}  # a list of many models stays small
    model = (await rig.models.GetModel(model_pb2.GetModelRequest(model="a"))).model
    assert dict(model.versions[0].metadata) == {"args.yaml": "epochs: 3\n"}
    # Other names are another pack; other texts are not.
    other = await rig.register("b", renamed_classes={3: "bolt"})
    assert other.state == model_pb2.VERSION_STATE_UPLOADED
    assert (await rig.register("c", renamed_classes={3: "nut"})).state == READY


async def test_a_repeated_request_id_makes_no_version(rig: Rig) -> None:
    first = await rig.register("a", request_id="r1")
    assert (await rig.register("a", request_id="r1")).version == first.version
    assert (await rig.register("a", request_id="r2")).version.version == 2


async def test_a_wait_that_is_too_short_says_what_goes_on(rig: Rig) -> None:
    await rig.upload(b"weights")
    request = model_pb2.RegisterModelRequest(
        name="a", artifact=hashlib.sha256(b"weights").hexdigest(), wait=True
    )
    error = await refused(rig.models.RegisterModel(request, timeout=0.3))
    assert isinstance(error, errors.DeadlineExceeded)


async def test_a_pack_that_is_not_there_is_refused(rig: Rig) -> None:
    await rig.register("a")
    claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=1)
    job = (await rig.importing.ClaimImport(claim)).job
    report = importing_pb2.ReportImportRequest(importer="i1", version=job.version)
    report.pack.digest = "0" * 64
    assert isinstance(await refused(rig.importing.ReportImport(report)), errors.PackNotFound)
    other = importing_pb2.ReportImportRequest(importer="i2", version=job.version)
    other.progress.fraction = 0.1
    assert isinstance(await refused(rig.importing.ReportImport(other)), errors.ImportNotYours)


async def test_nothing_to_import_is_an_empty_answer(rig: Rig) -> None:
    claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=0.05)
    assert not (await rig.importing.ClaimImport(claim)).HasField("job")


async def test_deleted_models_leave_the_workers(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.detect("a")
    deleted = await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="a"))
    assert [key.model for key in deleted.deleted] == ["a"]
    assert isinstance(await refused(rig.detect("a")), errors.ModelNotFound)
    await becomes(lambda: worker.released == ["a@1"])
    again = await refused(rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="a")))
    assert isinstance(again, errors.ModelNotFound)


# --- detect --------------------------------------------------------------------------------------


async def test_a_miss_loads_and_a_hit_does_not(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    miss = await rig.detect("a", request_id="r1")
    assert (miss.worker, miss.request_id, miss.version.version) == ("w1", "r1", 1)
    assert miss.timing.load_wait_ms > 0
    hit = await rig.detect("a")
    assert hit.timing.load_wait_ms == 0
    assert hit.timing.total_ms > 0
    assert hit.request_id
    assert worker.assigned == ["a@1"]
    assert worker.inferred[0].encoded == b"jpeg"


async def test_many_misses_are_one_load(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.load_s = 0.1
    answers = await asyncio.gather(*[rig.detect("a") for _ in range(20)])
    assert len(answers) == 20
    assert worker.assigned == ["a@1"]


async def test_the_default_version_is_the_newest_ready_one(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.register("a", b"one")
    await rig.import_next()
    await rig.register("a", b"two")
    assert (await rig.detect("a")).version.version == 1
    assert isinstance(await refused(rig.detect("a@2")), errors.ModelNotReady)
    await rig.import_next()
    assert (await rig.detect("a")).version.version == 2
    assert (await rig.detect("a@1")).version.version == 1


async def test_the_least_recently_used_makes_room(rig: Rig) -> None:
    worker = await rig.worker("w1", models=2)
    await rig.ready("a", "b", "c")
    for model in ("a", "b", "a", "c"):
        await rig.detect(model)
    assert worker.released == ["b@1"]
    assert sorted(worker.replicas) == ["a@1", "c@1"]


async def test_more_models_than_room_are_all_served(rig: Rig) -> None:
    worker = await rig.worker("w1", models=2)
    worker.infer_s = 0.01
    names = ["a", "b", "c", "d", "e"]
    await rig.ready(*names)
    answers = await asyncio.gather(*[rig.detect(n, timeout=30) for n in names * 4])
    assert len(answers) == 20
    assert len(worker.replicas) <= 2


async def test_a_lost_worker_costs_one_retry(rig: Rig) -> None:
    first, second = await rig.worker("w1"), await rig.worker("w2")
    await rig.ready("a")
    await rig.load("a", replicas=2)
    first.infer_s = second.infer_s = 0.3
    calls = [asyncio.create_task(rig.detect("a")) for _ in range(8)]
    await becomes(lambda: first.inferred and second.inferred)
    await first.die()
    assert {answer.worker for answer in await asyncio.gather(*calls)} == {"w2"}


async def test_a_worker_that_falls_silent_mid_call_is_given_up(rig: Rig) -> None:
    first = await rig.worker("w1")
    await rig.ready("a")
    await rig.detect("a")
    first.infer_s = 60
    call = asyncio.create_task(rig.detect("a"))
    await becomes(lambda: len(first.inferred) == 2)
    await rig.worker("w2")
    await first.fall_silent()
    assert (await call).worker == "w2"


async def test_a_worker_that_comes_back_is_waited_for(rig: Rig) -> None:
    first = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a", pin=True)
    await first.die()
    call = asyncio.create_task(rig.detect("a"))
    again = await rig.worker("w1")
    assert (await call).worker == "w1"
    assert again.assigned == ["a@1"]


async def test_a_stale_view_is_corrected_by_the_worker(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.detect("a")
    worker.replicas.clear()
    assert (await rig.detect("a")).worker == "w1"
    assert worker.assigned == ["a@1", "a@1"]


async def test_a_full_queue_is_told_or_avoided(rig: Rig) -> None:
    first = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a")
    first.on_infer = errors.QueueFull("8 tickets wait", retry_after_s=0.1)
    error = await refused(rig.detect("a"))
    assert isinstance(error, errors.QueueFull)
    assert error.retry_after_s == pytest.approx(0.1)
    await rig.worker("w2")
    await rig.load("a", replicas=2)
    assert {(await rig.detect("a")).worker for _ in range(8)} == {"w2"}


async def test_no_worker_is_an_error_after_the_grace(rig: Rig) -> None:
    await rig.ready("a")
    error = await refused(rig.detect("a"))
    assert isinstance(error, errors.NoWorker)
    assert error.retryable


async def test_a_deadline_says_what_was_waited_for(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.load_s = 5
    error = await refused(rig.detect("a", timeout=0.5))
    assert isinstance(error, errors.DeadlineExceeded)
    # Where the caller's own clock was first, only the code is known.
    assert "being loaded" in error.message or "no answer came in time" in error.message


async def test_a_model_that_fits_nowhere(rig: Rig) -> None:
    await rig.worker("w1", models=0)
    await rig.ready("a")
    assert isinstance(await refused(rig.detect("a")), errors.ModelTooLarge)
    assert isinstance(await refused(rig.load("a")), errors.ModelTooLarge)


async def test_a_failed_load_is_told_and_not_tried_by_every_caller(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.on_assign = errors.OutOfMemory("the device has 3 bytes left")
    for _ in range(5):
        error = await refused(rig.detect("a"))
        assert isinstance(error, errors.LoadFailed)
        assert "the device has 3 bytes left" in error.message
    assert len(worker.assigned) == 1
    worker.on_assign = None
    await rig.load("a")  # an admin's word is tried at once
    assert (await rig.detect("a")).worker == "w1"


BGR = types_pb2.CHANNEL_ORDER_BGR
RAW = types_pb2.RawImage(data=b"0" * 12, height=2, width=2, channel_order=BGR)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"model": "A b"}, errors.InvalidModelReference),
        ({"model": "nothing"}, errors.ModelNotFound),
        ({"encoded": b""}, errors.ImageEmpty),
        ({"encoded": b"0" * 101}, errors.ImageTooLarge),
        ({"raw": types_pb2.RawImage(data=b"0", height=2, width=2, channel_order=BGR)},
         errors.ImageShapeMismatch),
        ({"raw": types_pb2.RawImage(data=b"0" * 108, height=6, width=6, channel_order=BGR)},
         errors.ImageTooLarge),
        ({"raw": types_pb2.RawImage(data=b"0" * 12, height=2, width=2)}, errors.InvalidOption),
        ({"options": {"confidence": 1.5}}, errors.InvalidOption),
        ({"options": {"iou": float("nan")}}, errors.InvalidOption),
        ({"options": {"max_detections": 0}}, errors.InvalidOption),
        ({"options": {"region_of_interest": {"x_min": 5, "x_max": 1, "y_max": 2}}},
         errors.InvalidOption),
        ({"request_id": "has a space"}, errors.InvalidOption),
    ],
)  # fmt: skip
async def test_bad_requests_are_refused_at_the_door(
    tmp_path: Path, request_: dict[str, Any], kind: type[errors.YolopoolError]
) -> None:
    async with Rig(tmp_path, max_image_bytes=100, max_raw_bytes=107) as rig:
        await rig.ready("a")
        fields = {"model": "a", **request_}
        if "raw" not in fields:
            fields.setdefault("encoded", b"jpeg")
        request = detection_pb2.DetectRequest(**fields)
        assert type(await refused(rig.detection.Detect(request, timeout=5))) is kind


async def test_raw_images_and_options_reach_the_worker(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    options = detection_pb2.DetectOptions(confidence=0.5, classes=[1])
    request = detection_pb2.DetectRequest(model="a", raw=RAW, options=options)
    await rig.detection.Detect(request, timeout=5)
    assert worker.inferred[0].raw == RAW
    assert worker.inferred[0].options == options


# --- load and unload -----------------------------------------------------------------------------


async def test_load_and_unload_wait(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.load_s = 0.05
    version = await rig.load("a")
    assert [place.worker for place in version.replicas] == ["w1"]
    assert (version.wanted_replicas, version.pinned) == (1, False)
    unload = model_pb2.UnloadModelRequest(model="a", wait=True)
    gone = (await rig.models.UnloadModel(unload, timeout=5)).version
    assert not gone.replicas
    assert worker.replicas == {}
    await rig.models.UnloadModel(unload, timeout=5)


async def test_pinned_models_stay_and_leave_no_room(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    await rig.load("a", pin=True)
    for call in (rig.detect("b"), rig.load("b")):
        assert isinstance(await refused(call), errors.LedgerFull)
    shown = await rig.models.GetModel(model_pb2.GetModelRequest(model="b"))
    assert "LEDGER_FULL" in shown.model.versions[0].waiting_reason
    assert worker.released == []
    await rig.load("a")  # unpinned
    assert (await rig.detect("b")).worker == "w1"
    assert worker.released == ["a@1"]


async def test_a_worker_that_takes_turns_takes_more_than_fit_its_device(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1, tier=2)
    await rig.ready("a", "b", "c")
    for name in "abcab":
        assert (await rig.detect(name)).worker == "w1"
    # No eviction: the worker holds them all, and brings each to its device in turn.
    assert (sorted(worker.assigned), worker.released) == (["a@1", "b@1", "c@1"], [])


async def test_what_was_measured_is_sent_with_the_next_assign(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a")
    assert worker.footprints == []
    await rig.models.UnloadModel(model_pb2.UnloadModelRequest(model="a", wait=True), timeout=5)
    await rig.load("a")
    assert [(one.weights_bytes, one.max_batch) for one in worker.footprints] == [(100, 1)]
    while not await rig.registry.footprints():  # noqa: ASYNC110 - put on record in its own time
        await asyncio.sleep(0.05)
    ((key, footprint),) = (await rig.registry.footprints()).items()
    assert (key.variant, key.device_kind) == ("simulated/fp32", "sim")
    assert footprint.weights_bytes == 100


async def test_a_hot_standby_is_loaded_and_pinned_and_stays_when_it_is_none(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    version = await rig.keep("a", mode=types_pb2.RESIDENCY_MODE_HOT_STANDBY)
    assert (version.wanted_replicas, version.pinned) == (1, True)
    again = await rig.keep("a", mode=types_pb2.RESIDENCY_MODE_HOT_STANDBY)
    assert (again.wanted_replicas, again.pinned) == (1, True)
    assert again.residency == version.residency
    await becomes(lambda: "a@1" in worker.replicas and worker.replicas["a@1"].pinned)
    assert isinstance(await refused(rig.detect("b")), errors.LedgerFull)
    version = await rig.keep("a", mode=types_pb2.RESIDENCY_MODE_NORMAL)
    assert (version.wanted_replicas, version.pinned) == (1, False)
    assert version.residency.idle_release_s == 60
    await becomes(lambda: not worker.replicas["a@1"].pinned)
    assert worker.released == []
    await rig.detect("b")
    assert worker.released == ["a@1"]


async def test_a_pin_by_a_load_ends_with_another_way_to_keep_it(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a", pin=True, replicas=1)
    version = await rig.keep("a", mode=types_pb2.RESIDENCY_MODE_ON_DEMAND)
    assert (version.wanted_replicas, version.pinned) == (1, False)
    await becomes(lambda: not worker.replicas["a@1"].pinned)


async def test_what_is_registered_as_a_hot_standby_is_loaded_when_ready(rig: Rig) -> None:
    worker = await rig.worker("w1")
    residency = types_pb2.Residency(mode=types_pb2.RESIDENCY_MODE_HOT_STANDBY)
    made = await rig.register("a", residency=residency)
    assert made.residency.mode == types_pb2.RESIDENCY_MODE_HOT_STANDBY
    await rig.import_next()
    await becomes(lambda: "a@1" in worker.replicas and worker.replicas["a@1"].pinned)


async def test_a_load_of_what_takes_turns_is_done_when_it_had_its_turn(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1, tier=2)
    await rig.ready("a", "b")
    await rig.load("a")
    await rig.load("b")
    await becomes(lambda: worker.replicas["a@1"].state == types_pb2.REPLICA_STATE_WARM)
    version = await rig.load("a")
    assert [one.worker for one in version.replicas] == ["w1"]


async def test_what_waits_for_its_turn_serves_and_is_not_taken_away(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1, tier=1)
    await rig.ready("a", "b", "c")
    await rig.load("a")
    worker.turn_s = 30
    assert (await rig.detect("b", timeout=5)).worker == "w1"
    await rig.detect("a")
    worker.turn_s = 0
    assert (await rig.detect("c")).worker == "w1"
    # The tier is full, and of the two `b` was used least recently: but it is being loaded.
    assert worker.released == ["a@1"]


async def test_a_pin_without_room_is_refused_and_the_model_serves_on(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1, tier=2)
    await rig.ready("a", "b")
    await rig.load("a")
    await rig.load("b")
    worker.replicas["b@1"].outstanding = 1  # in use: it can't leave for the pin
    worker.poke()
    await becomes(lambda: rig.outstanding("w1", "b@1") == 1)
    loading = asyncio.create_task(rig.load("a", pin=True))
    await becomes(lambda: rig.waits_for("a@1") == "LEDGER_FULL")
    assert worker.released == []
    assert (await rig.detect("a")).worker == "w1"
    worker.replicas["b@1"].outstanding = 0
    worker.poke()
    assert (await loading).pinned
    assert worker.released == ["b@1"]


async def test_an_unload_ends_a_hot_standby(rig: Rig) -> None:
    worker = await rig.worker("w1")
    residency = types_pb2.Residency(mode=types_pb2.RESIDENCY_MODE_HOT_STANDBY)
    await rig.register("a", residency=residency)
    await rig.import_next()
    await becomes(lambda: worker.replicas)
    request = model_pb2.UnloadModelRequest(model="a", wait=True)
    version = (await rig.models.UnloadModel(request, timeout=5)).version
    assert version.residency.mode == types_pb2.RESIDENCY_MODE_NORMAL
    assert worker.replicas == {}


async def test_what_is_on_demand_leaves_when_idle_and_comes_back(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.keep("a", mode=types_pb2.RESIDENCY_MODE_ON_DEMAND, idle_release_s=0.5)
    await rig.detect("a")
    await becomes(lambda: worker.released)
    await rig.detect("a")
    assert worker.assigned == ["a@1", "a@1"]


async def test_a_cpu_steps_in_where_it_may(rig: Rig) -> None:
    fast, slow = await rig.worker("fast"), await rig.worker("slow", kind="cpu")
    fast.on_assign = errors.OutOfMemory("no bytes")
    await rig.ready("a")
    assert isinstance(await refused(rig.detect("a")), errors.LoadFailed)
    assert slow.assigned == []
    await rig.keep("a", cpu_fallback=True)
    assert (await rig.detect("a")).worker == "slow"


async def test_until_the_registry_was_read_no_model_is_told_to_be_missing(tmp_path: Path) -> None:
    answers = asyncio.Event()

    class Late(MemoryRegistry):
        async def desired(self) -> Desired:
            await answers.wait()
            return await super().desired()

    async with Rig(tmp_path) as rig:
        await rig.ready("a")
        late = Late()
        late.__dict__.update(rig.registry.__dict__)
        another = ControlPlane(rig.settings, late)
        addresses = await another.start()
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            models: Any = model_pb2_grpc.ModelServiceStub(channel)

            async def asked() -> Any:
                return await models.GetModel(model_pb2.GetModelRequest(model="a"), timeout=5)

            triton: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            ready = grpc_service_pb2.ServerReadyRequest()
            metadata = grpc_service_pb2.ModelMetadataRequest(name="a")
            assert not (await triton.ServerReady(ready, timeout=5)).ready
            for call in (asked(), triton.ModelMetadata(metadata, timeout=5)):
                error = await refused(call)
                assert isinstance(error, errors.RegistryUnavailable)
                assert error.retryable
            listing = "/yolopool.v1.ModelService/ListModels", model_pb2.ListModelsRequest()
            with pytest.raises(errors.RegistryUnavailable):
                await another.dispatch.unary(*listing, Caller("http"))
            stream: Any = detection_pb2_grpc.DetectionServiceStub(channel).DetectStream()
            assert isinstance(await refused(stream.read()), errors.RegistryUnavailable)
            opening = detection_pb2.DetectStreamRequest()
            opened = another.dispatch.stream(
                "/yolopool.v1.DetectionService/DetectStream", opening, Caller("http")
            )
            with pytest.raises(errors.RegistryUnavailable):
                await anext(opened)
            answers.set()
            await another.view.waiters.until("loaded", lambda: another.view.is_loaded or None, 5)
            assert (await asked()).model.versions
            assert (await triton.ServerReady(ready, timeout=5)).ready
        await another.stop()


@pytest.mark.parametrize(
    "fields", [{"mode": 9}, {"idle_release_s": -1}, {"idle_release_s": float("nan")}]
)
async def test_nonsense_about_keeping_is_refused(rig: Rig, fields: dict[str, Any]) -> None:
    await rig.ready("a")
    assert isinstance(await refused(rig.keep("a", **fields)), errors.InvalidOption)
    assert isinstance(await refused(rig.keep("b")), errors.ModelNotFound)


async def test_the_twin_of_a_version_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("a")
        another = ControlPlane(rig.settings, rig.registry)
        addresses = await another.start()
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            await another.view.waiters.until("loaded", lambda: another.view.is_loaded or None, 5)
            request = model_pb2.RegisterModelRequest(
                name="b", artifact=hashlib.sha256(b"a").hexdigest()
            )
            stub: Any = model_pb2_grpc.ModelServiceStub(channel)
            assert (await stub.RegisterModel(request, timeout=5)).version.state == READY
            request.settings.image_size = 64
            assert (await stub.RegisterModel(request, timeout=5)).version.state != READY
        await another.stop()


async def test_a_slow_load_delays_no_other_worker(rig: Rig) -> None:
    slow = await rig.worker("w1")
    await rig.ready("a", "b")
    slow.load_s = 30
    load = model_pb2.LoadModelRequest(model="a")
    await rig.models.LoadModel(load)
    await becomes(lambda: slow.assigned)
    await rig.worker("w2")
    assert (await rig.detect("b")).worker == "w2"


async def test_load_is_refused_with_bad_numbers(rig: Rig) -> None:
    await rig.ready("a")
    assert isinstance(await refused(rig.load("a", replicas=1001)), errors.InvalidOption)
    assert isinstance(await refused(rig.load("a")), errors.NoWorker)


# --- the fleet -----------------------------------------------------------------------------------


async def test_a_worker_says_its_ledger_and_whom_it_replaces(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1, tier=2)
    worker.terms = {"foreign_bytes": 5, "drift_bytes": 3, "host_bytes": 7, "max_hot": 2}
    worker.replaces_because = "3 bytes did not come back"
    worker.poke()
    await becomes(lambda: rig.plane.view.workers["w1"].replaces_because)
    (shown,) = (await rig.fleet.ListWorkers(fleet_pb2.ListWorkersRequest())).workers
    assert shown.replaces_because == "3 bytes did not come back"
    assert (shown.ledger.foreign_bytes, shown.ledger.drift_bytes) == (5, 3)
    assert (shown.ledger.host_bytes, shown.ledger.max_hot) == (7, 2)
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
        text = (await http.get("/metrics")).text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    (passes,), (images,) = (families[f"yolopool_worker_{n}"].samples for n in ("passes", "images"))
    assert (passes.value, images.value) == (4, 10)
    terms = {s.labels["term"]: s.value for s in families["yolopool_ledger_bytes"].samples}
    assert (terms["foreign"], terms["drift"], terms["host"], terms["assignable"]) == (5, 3, 7, 300)


async def test_the_fleet_in_numbers(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.ready("a")
    await rig.detect("a")
    await becomes(lambda: rig.plane.view.desired.wants)
    fleet = await rig.fleet.GetFleet(fleet_pb2.GetFleetRequest())
    assert (fleet.models, fleet.versions, fleet.workers_ready, fleet.importers) == (1, 1, 1, 1)
    assert (fleet.replicas_hot, fleet.requests_total, fleet.errors_total) == (1, 1, 0)
    assert fleet.reconciler == fleet.control_plane
    assert fleet.registry_available
    (worker,) = (await rig.fleet.ListWorkers(fleet_pb2.ListWorkersRequest())).workers
    assert (worker.id, worker.state) == ("w1", fleet_pb2.WORKER_STATE_READY)
    assert worker.replicas[0].version.model == "a"
    assert worker.ledger.weights_bytes == 100


async def test_the_requests_of_the_last_minute(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.ready("a", "b")
    for _ in range(3):
        await rig.detect("a")
    await refused(rig.detect("b", encoded=b""))  # refused before it has a version
    await refused(rig.detect("nobody knows it"))
    told = await rig.fleet.GetStatistics(fleet_pb2.GetStatisticsRequest())
    (one,) = told.versions
    assert (one.version.model, one.version.version) == ("a", 1)
    assert sum(one.steps) * told.step_s == pytest.approx(3)
    assert one.requests_per_s > 0
    assert (one.errors_per_s, one.inference_ms, one.batch_size) == (0, 2.0, 1)
    assert one.p99_ms >= one.p50_ms > 0


async def test_a_silent_worker_is_lost_and_one_that_leaves_is_gone(rig: Rig) -> None:
    silent, leaving = await rig.worker("w1"), await rig.worker("w2")
    await silent.fall_silent()
    await becomes(lambda: rig.plane.view.workers["w1"].state == "LOST")
    leave = membership_pb2.LeaveRequest(worker="w2", incarnation=leaving.incarnation)
    await leaving.fall_silent()
    await rig.membership.Leave(leave)
    await rig.membership.Leave(leave)
    assert list(rig.plane.view.workers) == ["w1"]


@pytest.mark.parametrize(
    "changes",
    [{"id": "a b"}, {"address": "nowhere"}, {"incarnation": ""}, {"device_kind": "abacus"}],
)
async def test_wrong_announcements_are_refused(rig: Rig, changes: dict[str, str]) -> None:
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    report = one.report()
    for name, value in changes.items():
        setattr(report, name, value)
    error = await refused(rig.membership.Join(membership_pb2.JoinRequest(worker=report)))
    assert isinstance(error, errors.InvalidWorker)


async def test_a_worker_does_not_say_that_it_is_lost_and_never_goes_back(rig: Rig) -> None:
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    report = one.report()
    await rig.membership.Join(membership_pb2.JoinRequest(worker=report))
    for state in (fleet_pb2.WORKER_STATE_LOST, fleet_pb2.WORKER_STATE_STARTING):
        report.state = state
        error = await refused(rig.membership.Join(membership_pb2.JoinRequest(worker=report)))
        assert isinstance(error, errors.InvalidWorker)
        error = await refused(_beat(rig, report))
        assert isinstance(error, errors.InvalidWorker)
    assert rig.plane.view.workers["w1"].state == "READY"


@pytest.mark.parametrize(
    "changes", [{"address": "nowhere"}, {"io_addresses": ["x"]}, {"device_kind": "abacus"}]
)
async def test_wrong_heartbeats_are_refused(rig: Rig, changes: dict[str, Any]) -> None:
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    report = one.report()
    await rig.membership.Join(membership_pb2.JoinRequest(worker=report))
    report.MergeFrom(fleet_pb2.Worker(**changes))
    assert isinstance(await refused(_beat(rig, report)), errors.InvalidWorker)


@pytest.mark.parametrize("part", ["epoch", "counter"])
async def test_no_worker_has_seen_a_token_above_which_there_is_none(rig: Rig, part: str) -> None:
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    token = types_pb2.FencingToken(**{part: 2**64 - 1})
    asked = membership_pb2.JoinRequest(worker=one.report(), highest_token=token)
    assert isinstance(await refused(rig.membership.Join(asked)), errors.InvalidWorker)
    assert rig.plane.view.highest_token != FencingToken(token.epoch, token.counter)
    asked.ClearField("highest_token")
    await rig.membership.Join(asked)
    assert isinstance(await refused(_beat(rig, one.report(), token)), errors.InvalidWorker)


@pytest.mark.parametrize("part", ["epoch", "counter"])
async def test_no_worker_uses_up_the_tokens(rig: Rig, part: str) -> None:
    """The next leader's would be above, and no worker that obeyed it could join again."""
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    now_ms = int(time.time() * 1000)
    token = types_pb2.FencingToken(**{"epoch": now_ms + 1000, part: 2**53 - 1})
    await rig.membership.Join(membership_pb2.JoinRequest(worker=one.report(), highest_token=token))
    await _beat(rig, one.report(), token)
    highest = rig.plane.view.highest_token
    assert highest is None or max(highest.epoch, highest.counter) < 2**52
    honest = types_pb2.FencingToken(epoch=now_ms + 86_400_000, counter=7)
    await _beat(rig, one.report(), honest)  # a clock that was a day ahead
    assert rig.plane.view.highest_token == FencingToken(honest.epoch, honest.counter)


async def _beat(
    rig: Rig, report: fleet_pb2.Worker, token: types_pb2.FencingToken | None = None
) -> Any:
    async def beats() -> AsyncIterator[membership_pb2.HeartbeatRequest]:
        yield membership_pb2.HeartbeatRequest(worker=report, highest_token=token)

    call = rig.membership.Heartbeat(beats())
    return await call.read()


@pytest.mark.parametrize("addresses", [["127.0.0.1:5", "nowhere"], ["127.0.0.1:5"] * 65])
async def test_wrong_io_processes_are_refused(rig: Rig, addresses: list[str]) -> None:
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:5"
    report = one.report()
    report.io_addresses.extend(addresses)
    error = await refused(rig.membership.Join(membership_pb2.JoinRequest(worker=report)))
    assert isinstance(error, errors.InvalidWorker)


async def test_infers_go_to_io_processes_in_turns_and_orders_do_not(rig: Rig) -> None:
    worker = await rig.worker("w1")
    first, second = await worker.add_io(), await worker.add_io()
    worker.poke()
    await becomes(lambda: rig.plane.view.workers["w1"].io_addresses == (first, second))
    await rig.ready("a")
    for _ in range(6):
        await rig.detect("a")
    assert len(worker.inferred) == 6
    assert [worker.io[address].infers for address in (first, second)] == [3, 3]
    for address in (first, second):  # one that ended is not asked any more, nor are both
        gone = worker.io.pop(address)
        worker.poke()
        await becomes(lambda: len(rig.plane.view.workers["w1"].io_addresses) == len(worker.io))
        await gone.server.server.stop(0)
        for _ in range(3):
            await rig.detect("a")
    assert len(worker.inferred) == 12


async def test_metrics_health_and_index(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.ready("a")
    await rig.detect("a")
    await refused(rig.detect("b"))
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
        for path in ("/healthz", "/readyz", "/"):
            assert (await http.get(path)).status_code == 200
        text = (await http.get("/metrics")).text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    outcomes = {s.labels["outcome"]: s.value for s in families["yolopool_requests"].samples
                if s.name.endswith("_total") and s.value}  # fmt: skip
    assert outcomes == {"OK": 1.0, "MODEL_NOT_FOUND": 1.0}
    for name in (
        "stage_seconds", "request_seconds", "batch_size", "model_requests", "loads",
        "load_seconds", "releases", "replicas", "workers", "ledger_bytes", "worker_outstanding",
        "worker_passes", "worker_images",
        "registry_available", "requests_in_flight",
    ):  # fmt: skip
        assert f"yolopool_{name}" in families


async def test_a_dashboard_of_triton_finds_its_names(tmp_path: Path) -> None:
    async with Rig(tmp_path, triton_metrics=True) as rig:
        worker = await rig.worker("w1", kind="cuda")
        stand = types_pb2.DeviceStand(
            utilisation=0.5, memory_total_bytes=100, free_bytes=30, power_w=310.0, energy_j=5000.0
        )
        worker.figures = fleet_pb2.WorkerFigures(device=stand)
        worker.infer_s = 0.003  # no less than the pass that it tells of
        await rig.ready("a")
        for _ in range(3):
            await rig.detect("a")
        worker.on_infer = errors.QueueFull("4 wait")
        await refused(rig.detect("a"))
        await becomes(lambda: rig.plane.view.workers["w1"].figures)
        async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
            text = (await http.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("nv_")]
    told = {series: float(value) for series, value in lines}
    of_version = 'model="a",version="1"'
    assert told[f"nv_inference_request_success{{{of_version}}}"] == 3
    assert told['nv_inference_request_failure{model="a",reason="REJECTED",version="1"}'] == 1
    assert told[f"nv_inference_compute_infer_duration_us{{{of_version}}}"] == pytest.approx(6000)
    total_us = told[f"nv_inference_request_duration_us{{{of_version}}}"]
    assert 6000 < total_us < 60e6
    (uuid,) = {series.partition('"')[2] for series in told if series.startswith("nv_gpu_util")}
    gpu = {name: told[f'nv_{name}{{gpu_uuid="{uuid}'] for name in (
        "gpu_utilization", "gpu_memory_used_bytes", "gpu_power_usage", "energy_consumption",
    )}  # fmt: skip
    assert list(gpu.values()) == [0.5, 70, 310, 5000]


async def test_every_outcome_is_one_log_line(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.ready("a")
    with structlog.testing.capture_logs() as lines:
        await rig.detect("a", request_id="good")
        await refused(rig.detect("b", request_id="unknown"))
        await refused(rig.detect("a", encoded=b"", request_id="empty"))
    found = {line["request_id"]: line for line in lines if line["event"] == "request"}
    assert {id_: line["outcome"] for id_, line in found.items()} == {
        "good": "OK",
        "unknown": "MODEL_NOT_FOUND",
        "empty": "IMAGE_EMPTY",
    }
    good = found["good"]
    assert (good["model"], good["version"], good["worker"], good["batch_size"]) == ("a", 1, "w1", 1)
    assert good["ledger_used_bytes"] == 100
    assert good["inference_ms"] == 2.0


async def test_serving_goes_on_while_the_store_is_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.worker("w1")
    await rig.ready("a", "b")
    await rig.detect("a")

    async def away(*_: Any, **__: Any) -> Any:
        raise errors.RegistryUnavailable("the store does not answer: try again")

    for name in (
        "want",
        "keep_lease",
        "take_lease",
        "desired",
        "desired_since",
        "register",
        "record_workers",
    ):
        monkeypatch.setattr(rig.registry, name, away)
    assert (await rig.detect("a")).worker == "w1"
    assert isinstance(await refused(rig.detect("b")), errors.RegistryUnavailable)
    assert isinstance(await refused(rig.register("c")), errors.RegistryUnavailable)
    await becomes(lambda: not rig.plane.view.registry_available)
    late = rig.plane._loader.timed_out(VersionKey("a", 1))
    assert late.details == {"waited_for": "REGISTRY"}
    monkeypatch.undo()
    assert (await rig.detect("b")).worker == "w1"

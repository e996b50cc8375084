"""Builds of a version: made, placed and asked for like a version, and served in its place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.control_plane_rig import HOT, Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import importing_pb2, model_pb2, types_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


async def build(rig: Rig, model: str = "a", **more: Any) -> model_pb2.ModelVersion:
    asked = {"backend": "openvino", "precision": "bf16", "device_kind": "cpu"} | more
    request = model_pb2.BuildModelRequest(model=model, **asked)
    made: model_pb2.ModelVersion = (await rig.models.BuildModel(request, timeout=5)).build
    return made


async def serve(rig: Rig, variant: str, **more: Any) -> model_pb2.ModelVersion:
    """By this build from now on; with no drift, on every compute class."""
    asked = {"unchecked": "drift" not in more} | more
    request = model_pb2.SetVariantRequest(model="a", device_kind="cpu", variant=variant, **asked)
    version: model_pb2.ModelVersion = (await rig.models.SetVariant(request, timeout=5)).version
    return version


async def cpu(rig: Rig, name: str = "w1", compute_class: str = "amx") -> ScriptedWorker:
    return await rig.worker(name, kind="cpu", compute_class=compute_class)


async def test_an_importer_is_told_what_to_build(rig: Rig) -> None:
    await rig.ready("a")
    made = await build(rig)
    assert made.version == types_pb2.VersionKey(model="a+openvino-bf16-cpu", version=1)
    assert made.state == model_pb2.VERSION_STATE_UPLOADED
    assert made.build_of == types_pb2.VersionKey(model="a", version=1)
    claim = importing_pb2.ClaimImportRequest(importer="i", wait_s=1)
    job = (await rig.importing.ClaimImport(claim, timeout=5)).job
    assert (job.build.backend, job.build.precision) == ("openvino", "bf16")
    assert (job.calibration, job.calibration_uri) == ("", "")


async def test_a_build_is_asked_for_by_its_name_and_shown_with_its_version(rig: Rig) -> None:
    one = await cpu(rig)
    await rig.ready("a")
    await build(rig)
    await rig.import_next()
    await rig.detect("a+openvino-bf16-cpu@1")
    assert one.replicas["a+openvino-bf16-cpu@1"].variant.precision == "bf16"
    await rig.detect("a+openvino-bf16-cpu")
    listed = (await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)).models
    assert [model.name for model in listed] == ["a"]
    (shown,) = listed[0].versions[0].builds
    assert shown.version.model == "a+openvino-bf16-cpu"


async def test_a_build_for_torch_is_the_versions_own_pack(rig: Rig) -> None:
    await rig.ready("a")
    made = await build(rig, backend="torch")
    assert made.state == model_pb2.VERSION_STATE_READY
    again = await build(rig, backend="torch")
    assert again.version == made.version


async def test_a_build_runs_on_its_kind_of_device_alone(rig: Rig) -> None:
    gpu = await rig.worker("w1", kind="cuda")
    await rig.ready("a")
    await build(rig, backend="torch")
    error = await refused(rig.detect("a+torch-bf16-cpu", timeout=1.5))
    assert "it is a build for cpu" in error.message
    slow = await cpu(rig, "w2")
    await rig.detect("a+torch-bf16-cpu")  # though the fleet has an accelerator
    assert "a+torch-bf16-cpu@1" in slow.replicas
    assert "a+torch-bf16-cpu@1" not in gpu.replicas


async def test_a_version_is_served_by_its_build_from_now_on(rig: Rig) -> None:
    one = await cpu(rig)
    await rig.ready("a")
    await rig.load("a")
    own = one.replicas["a@1"].pack
    await build(rig)
    await rig.import_next()
    drift = types_pb2.Drift(
        exact="torch/fp32", images=3, objects=9, matched=9, map50=0.5, compute_class="amx"
    )
    version = await serve(rig, "openvino/bf16", drift=drift)
    assert version.served["cpu"].drift == drift
    assert version.served["cpu"].variant.backend == "openvino"
    await becomes(lambda: one.replicas["a@1"].pack not in ("", own))
    await becomes(lambda: one.replicas["a@1"].state == HOT)
    assert one.replicas["a@1"].variant.precision == "bf16"
    answer = await rig.detect("a")
    assert answer.drift == drift
    assert not (await rig.detect("a+openvino-bf16-cpu")).HasField("drift")
    await serve(rig, "")
    await becomes(lambda: one.replicas["a@1"].pack == own)
    assert not (await rig.detect("a")).HasField("drift")


async def test_replicas_change_one_at_a_time(rig: Rig) -> None:
    first, second = await cpu(rig, "w1"), await cpu(rig, "w2")
    await rig.ready("a")
    await rig.load("a", replicas=2)
    await build(rig, backend="torch")
    first.load_s = second.load_s = 0.4
    await serve(rig, "torch/bf16")
    seen = set()

    def changed() -> bool:
        states = tuple(one.replicas["a@1"].state == HOT for one in (first, second))
        seen.add(states)
        made = [one.replicas["a@1"].variant.precision for one in (first, second)]
        return made == ["bf16", "bf16"] and all(states)

    await becomes(changed)
    assert (False, False) not in seen


async def test_nonsense_about_builds_is_refused(rig: Rig) -> None:
    await rig.ready("a")
    for wrong in (
        {"backend": "caffe"},
        {"precision": "fp64"},
        {"device_kind": "sim"},
        {"precision": "int8"},
        {"calibration": "f" * 64},
        {"model": "a+openvino-bf16-cpu"},
    ):
        error = await refused(build(rig, **wrong))
        known = (errors.InvalidOption, errors.ModelNotFound)
        assert isinstance(error, known), wrong
    missing = await refused(build(rig, precision="int8", calibration="f" * 64))
    assert isinstance(missing, errors.ArtifactNotFound)
    assert isinstance(await refused(serve(rig, "openvino/bf16")), errors.InvalidOption)
    await build(rig)
    assert isinstance(await refused(serve(rig, "openvino/bf16")), errors.ModelNotReady)
    failure = importing_pb2.ImportFailure(reason="ARTIFACT_UNSUPPORTED", message="no such operator")
    await rig.import_next(failure)
    assert isinstance(await refused(serve(rig, "openvino/bf16")), errors.ModelImportFailed)


async def test_a_build_that_does_not_load_takes_no_other_replica_away(rig: Rig) -> None:
    workers = [await cpu(rig, name) for name in ("w1", "w2")]
    await rig.ready("a")
    await rig.load("a", replicas=2)
    own = workers[0].replicas["a@1"].pack
    await build(rig)
    await rig.import_next()
    for one in workers:
        one.refuse["a@1"] = errors.LoadFailed("OpenVINO is not installed")
    await serve(rig, "openvino/bf16")
    await becomes(lambda: any(len(one.assigned) > 1 for one in workers))
    await asyncio.sleep(1.2)  # two looks at the whole fleet
    assert sum(len(one.assigned) > 1 for one in workers) == 1
    assert any(one.replicas["a@1"].pack == own for one in workers)
    for one in workers:
        one.refuse.clear()
    await serve(rig, "")
    await becomes(lambda: all(one.replicas["a@1"].pack == own for one in workers))


async def test_an_importer_that_knows_of_no_builds_makes_none(rig: Rig) -> None:
    await rig.ready("a")
    await build(rig)
    claim = importing_pb2.ClaimImportRequest(importer="i", wait_s=1)
    job = (await rig.importing.ClaimImport(claim, timeout=5)).job
    job.ClearField("build")
    report = importing_pb2.ReportImportRequest(importer="i", version=job.version)
    report.pack.CopyFrom(rig.pack(job))
    error = await refused(rig.importing.ReportImport(report, timeout=5))
    assert "update the importer to this release" in error.message
    again = await build(rig)  # it failed, so it may be tried again
    assert again.state == model_pb2.VERSION_STATE_UPLOADED


async def test_a_build_that_serves_is_not_deleted(rig: Rig) -> None:
    await rig.ready("a")
    await build(rig, backend="torch")
    await serve(rig, "torch/bf16")
    request = model_pb2.DeleteModelRequest(model="a+torch-bf16-cpu@1")
    error = await refused(rig.models.DeleteModel(request, timeout=5))
    assert "serves a@1" in error.message
    await serve(rig, "")
    await rig.models.DeleteModel(request, timeout=5)


async def test_a_bare_name_of_a_build_is_of_the_default_version(rig: Rig) -> None:
    await cpu(rig)
    await rig.ready("a")
    await build(rig, backend="torch")
    await rig.register("a", b"another")
    await rig.import_next()
    error = await refused(rig.detect("a+torch-bf16-cpu"))
    assert isinstance(error, errors.VersionNotFound)
    await rig.detect("a+torch-bf16-cpu@1")


@pytest.mark.parametrize("wrong", [{"largest_px": float("nan")}, {"matched": 3}, {"map50": 2.0}])
async def test_a_drift_that_is_none_is_refused(rig: Rig, wrong: dict[str, Any]) -> None:
    await rig.ready("a")
    await build(rig, backend="torch")
    error = await refused(serve(rig, "torch/bf16", drift=types_pb2.Drift(objects=2, **wrong)))
    assert isinstance(error, errors.InvalidOption)


async def test_builds_go_with_their_version(rig: Rig) -> None:
    await rig.ready("a")
    await build(rig, backend="torch")
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="a"), timeout=5)
    error = await refused(rig.detect("a+torch-bf16-cpu"))
    assert isinstance(error, errors.ModelNotFound)

"""A build in reduced precision serves on the compute classes that it was compared on."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.version import Drift, ServedBuild, VersionSettings
from tests.contract.control_plane.test_builds import build, cpu, serve
from tests.contract.control_plane_rig import HOT, Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import explain_pb2, model_pb2, types_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


async def int8_build(rig: Rig) -> None:
    """Of the model a, for OpenVINO."""
    await rig.ready("a")
    images = b"a zip of images"
    await rig.upload(images)
    await build(rig, precision="int8", calibration=hashlib.sha256(images).hexdigest())
    await rig.import_next()


def drift_on(compute_class: str, largest_px: float = 1.0) -> types_pb2.Drift:
    return types_pb2.Drift(
        exact="torch/fp32",
        images=3,
        objects=9,
        matched=9,
        largest_px=largest_px,
        compute_class=compute_class,
    )


def serves(worker: ScriptedWorker) -> str:
    """backend/precision that it has of the model a on its device; empty: none."""
    replica = worker.replicas.get("a@1")
    if replica is None or replica.state != HOT:
        return ""
    return f"{replica.variant.backend}/{replica.variant.precision}"


async def verdicts(rig: Rig) -> dict[str, Any]:
    request = explain_pb2.ExplainModelRequest(model="a")
    answer = await rig.explain.ExplainModel(request, timeout=5)
    return {verdict.worker: verdict for verdict in answer.workers}


async def test_an_int8_build_checked_on_amx_is_not_served_on_avx2_until_it_is_checked_there(
    rig: Rig,
) -> None:
    wide, narrow = await cpu(rig, "wide", "amx"), await cpu(rig, "narrow", "avx2")
    await int8_build(rig)
    await rig.load("a", replicas=2)
    await serve(rig, "openvino/int8", drift=drift_on("amx"))
    await becomes(lambda: serves(wide) == "openvino/int8")
    assert serves(narrow) == "torch/fp32"
    found = await verdicts(rig)
    assert (found["wide"].feasible, found["wide"].reason) == (True, "")
    assert (found["narrow"].feasible, found["narrow"].reason) == (True, "BUILD_UNCHECKED")
    compared = "torch/fp32 serves it here: openvino/int8 was compared on amx alone, and this worker"
    assert f"{compared} is avx2: run" in found["narrow"].why
    assert "models build a@1 --backend openvino --precision int8" in found["narrow"].why
    assert "--compute-class avx2" in found["narrow"].why

    version = await serve(rig, "openvino/int8", drift=drift_on("avx2", 2.0))
    assert [one.compute_class for one in version.served["cpu"].checks] == ["amx", "avx2"]
    await becomes(lambda: serves(narrow) == "openvino/int8")
    assert serves(wide) == "openvino/int8"
    assert (await verdicts(rig))["narrow"].reason == ""


async def test_a_worker_that_joins_later_is_judged_by_its_class(rig: Rig) -> None:
    await cpu(rig, "wide", "amx")
    await int8_build(rig)
    await serve(rig, "openvino/int8", drift=drift_on("amx"))
    await rig.load("a")
    old, same = await cpu(rig, "old", ""), await cpu(rig, "same", "amx")
    await rig.load("a", replicas=3)
    await becomes(lambda: serves(same) == "openvino/int8" and serves(old) == "torch/fp32")
    assert "does not say which one it is" in (await verdicts(rig))["old"].why


async def test_an_answer_tells_the_drift_of_the_class_that_gave_it(rig: Rig) -> None:
    wide = await cpu(rig, "wide", "amx")
    await int8_build(rig)
    await rig.load("a")
    await serve(rig, "openvino/int8", drift=drift_on("amx", 1.0))
    await serve(rig, "openvino/int8", drift=drift_on("avx2", 2.0))
    await becomes(lambda: serves(wide) == "openvino/int8")
    answer = await rig.detect("a")
    assert (answer.drift.compute_class, answer.drift.largest_px) == ("amx", 1.0)


async def test_a_build_is_asked_for_by_name_where_it_was_not_checked(rig: Rig) -> None:
    """Else it could never be compared there."""
    narrow = await cpu(rig, "narrow", "avx2")
    await int8_build(rig)
    await serve(rig, "openvino/int8", drift=drift_on("amx"))
    answer = await rig.detect("a+openvino-int8-cpu")
    assert (answer.variant.precision, answer.variant.compute_class) == ("int8", "avx2")
    assert "a+openvino-int8-cpu@1" in narrow.replicas


async def test_what_is_exact_needs_no_check(rig: Rig) -> None:
    narrow = await cpu(rig, "narrow", "avx2")
    await rig.ready("a")
    await build(rig, precision="fp32")
    await rig.import_next()
    await rig.load("a")
    await serve(rig, "openvino/fp32", unchecked=False)
    await becomes(lambda: serves(narrow) == "openvino/fp32")


async def test_unchecked_serves_it_everywhere(rig: Rig) -> None:
    narrow = await cpu(rig, "narrow", "avx2")
    await int8_build(rig)
    await rig.load("a")
    version = await serve(rig, "openvino/int8", drift=drift_on("amx"), unchecked=True)
    assert version.served["cpu"].unchecked
    await becomes(lambda: serves(narrow) == "openvino/int8")
    # The check on record stays when the exception ends.
    await serve(rig, "openvino/int8", unchecked=False)
    await becomes(lambda: serves(narrow) == "torch/fp32")


async def bf16_build(rig: Rig) -> None:
    """Of the model a, for OpenVINO."""
    await rig.ready("a")
    await build(rig, precision="bf16")
    await rig.import_next()


async def test_a_build_that_no_worker_can_run_is_refused_and_nothing_changes(rig: Rig) -> None:
    narrow = await cpu(rig, "narrow", "avx2")
    await bf16_build(rig)
    await rig.load("a")
    error = await refused(serve(rig, "openvino/bf16", unchecked=True))
    assert isinstance(error, errors.InvalidOption)
    assert "no cpu worker of the pool computes openvino/bf16 (they are avx2)" in error.message
    asked = model_pb2.GetModelRequest(model="a")
    (held,) = (await rig.models.GetModel(asked, timeout=5)).model.versions
    assert not held.served
    assert serves(narrow) == "torch/fp32"
    assert (await rig.detect("a")).variant.precision == "fp32"


async def test_where_a_build_can_not_run_the_default_build_goes_on(rig: Rig) -> None:
    wide, narrow = await cpu(rig, "wide", "amx"), await cpu(rig, "narrow", "avx2")
    await bf16_build(rig)
    await rig.load("a", replicas=2)
    await serve(rig, "openvino/bf16", unchecked=True)
    await becomes(lambda: serves(wide) == "openvino/bf16")
    assert serves(narrow) == "torch/fp32"
    assert "(avx2) does not compute openvino/bf16" in (await verdicts(rig))["narrow"].why
    # Nor is the build itself loaded there, when it is asked for by name.
    answer = await rig.detect("a+openvino-bf16-cpu")
    assert answer.variant.compute_class == "amx"
    assert "a+openvino-bf16-cpu@1" not in narrow.replicas


async def test_a_build_serves_again_where_it_was_compared(rig: Rig) -> None:
    wide = await cpu(rig, "wide", "amx")
    await int8_build(rig)
    await rig.load("a")
    await serve(rig, "openvino/int8", drift=drift_on("amx"))
    await becomes(lambda: serves(wide) == "openvino/int8")
    await serve(rig, "")
    await becomes(lambda: serves(wide) == "torch/fp32")
    version = await serve(rig, "openvino/int8", unchecked=False)
    assert version.served["cpu"].drift == drift_on("amx")
    await becomes(lambda: serves(wide) == "openvino/int8")
    assert not (await rig.detect("a+openvino-int8-cpu")).HasField("drift")


async def test_a_leader_warns_once_of_a_build_that_an_older_release_left(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    for name, compute_class in (("old", ""), ("new", "amx")):
        version = await registry.register(name, "a" * 64, VersionSettings(320), "", "", 1.0)
        drift = Drift(images=3, compute_class=compute_class)
        await registry.set_served(version.key, "cpu", ServedBuild("openvino", "int8"), drift)

    def warned() -> list[Any]:
        return [line for line in lines if "serves nowhere" in line["event"]]

    with structlog.testing.capture_logs() as lines:
        async with Rig(tmp_path, registry):
            await becomes(lambda: bool(warned()))
            await asyncio.sleep(0.5)  # two observations
    (line,) = warned()
    command = "yolopool models variant old@1 openvino/int8 --device cpu --unchecked"
    assert (line["version"], line["command"]) == ("old@1", command)


async def test_a_class_that_is_none_is_refused(rig: Rig) -> None:
    await int8_build(rig)
    error = await refused(serve(rig, "openvino/int8", drift=drift_on("A B")))
    assert isinstance(error, errors.InvalidOption)

"""Labels of versions and the filters of the list, over real gRPC and HTTP."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from tests.contract.control_plane_rig import Rig
from yolopool.v1 import model_pb2, types_pb2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with Rig(tmp_path_factory.mktemp("pool")) as rig:
        await rig.register("line7/bolts", b"bolts", labels={"line": "7", "site": "berlin"})
        await rig.import_next()
        await rig.register("line7/bolts", b"newer", labels={"line": "7"})
        await rig.register("line8/nuts", b"nuts")
        yield rig


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def names(rig: Rig, **asked: Any) -> list[str]:
    found = await rig.models.ListModels(model_pb2.ListModelsRequest(**asked), timeout=5)
    keys = [version.version for model in found.models for version in model.versions]
    return [f"{key.model}@{key.version}" for key in keys]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["line7/bolts@2", "line7/bolts@1", "line8/nuts@1"]),
        ({"label_selector": "line=7"}, ["line7/bolts@2", "line7/bolts@1"]),
        ({"label_selector": "line=7,!site"}, ["line7/bolts@2"]),
        ({"label_selector": "line!=7"}, ["line8/nuts@1"]),
        ({"name_prefix": "line7/", "task": "detect"}, ["line7/bolts@1"]),
        ({"class_names": ["circle"]}, ["line7/bolts@1"]),
        ({"class_names": ["circle", "bolt"]}, []),
        ({"artifact": hashlib.sha256(b"nuts").hexdigest()[:8].upper()}, ["line8/nuts@1"]),
        ({"dataset": "coco8.yaml"}, []),
    ],
)
async def test_the_list_has_what_meets_every_filter(
    rig: Rig, asked: dict[str, Any], found: list[str]
) -> None:
    assert await names(rig, **asked) == found


async def test_labels_are_set_and_taken_away(rig: Rig) -> None:
    asked = model_pb2.SetLabelsRequest(
        model="line8/nuts", labels={"line": "8", "trial": ""}, remove=["old"]
    )
    version = (await rig.models.SetLabels(asked, timeout=5)).version
    assert dict(version.labels) == {"line": "8", "trial": ""}
    assert await names(rig, label_selector="trial") == ["line8/nuts@1"]
    asked = model_pb2.SetLabelsRequest(model="line8/nuts@1", remove=["trial", "line"])
    assert not (await rig.models.SetLabels(asked, timeout=5)).version.labels


async def test_labels_by_http(rig: Rig) -> None:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}") as http:
        put = await http.put("/v1/models/line8/nuts/labels", json={"labels": {"line": "8"}})
        assert (put.status_code, put.json()["labels"]) == (200, {"line": "8"})
        found = await http.get("/v1/models", params={"label_selector": "line=8", "task": ""})
        assert [model["name"] for model in found.json()["models"]] == ["line8/nuts"]
        taken = await http.put("/v1/models/line8/nuts@1/labels", json={"remove": ["line"]})
        assert taken.json()["labels"] == {}
        wrong = await http.get("/v1/models", params={"label_selector": "a b"})
        assert (wrong.status_code, wrong.json()["reason"]) == (400, "INVALID_OPTION")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListModels", model_pb2.ListModelsRequest(label_selector="=")),
        ("SetLabels", model_pb2.SetLabelsRequest(model="line8/nuts", labels={"a b": ""})),
        ("SetLabels", model_pb2.SetLabelsRequest(model="line8/nuts", remove=["-"])),
        ("SetLabels", model_pb2.SetLabelsRequest(
            model="line8/nuts", labels={f"l{number}": "" for number in range(33)})),
        ("RegisterModel", model_pb2.RegisterModelRequest(
            name="line8/nuts", artifact=hashlib.sha256(b"nuts").hexdigest(), labels={"a": "é"})),
        ("RegisterModel", model_pb2.RegisterModelRequest(
            name="line8/nuts", artifact=hashlib.sha256(b"nuts").hexdigest(), number=1)),
        ("RegisterModel", model_pb2.RegisterModelRequest(
            name="line8/nuts", artifact=hashlib.sha256(b"nuts").hexdigest(), number=10**9)),
    ],
)  # fmt: skip
async def test_what_is_no_label_or_number_is_refused(rig: Rig, method: str, request_: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(rig.models, method)(request_, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_a_version_was_registered_with_is_kept(rig: Rig) -> None:
    await rig.register(
        "old", b"weights alone", number=7, architecture_yaml="nc: 1", class_names=["bolt"],
        settings=types_pb2.VersionSettings(confidence=0.5), metadata={"args.yaml": "epochs: 9"},
    )  # fmt: skip
    asked = model_pb2.GetModelRequest(model="old@7")
    (version,) = (await rig.models.GetModel(asked, timeout=5)).model.versions
    given = version.registered
    assert (given.settings.confidence, given.settings.image_size) == (0.5, 0)
    assert (list(given.class_names), given.architecture_yaml, given.by) == (
        ["bolt"], "nc: 1", "anonymous",
    )  # fmt: skip
    assert given.architecture_sha256 == hashlib.sha256(b"nc: 1").hexdigest()
    listed = await rig.models.ListModels(model_pb2.ListModelsRequest(name_prefix="old"), timeout=5)
    (shown,) = listed.models[0].versions
    assert (shown.registered.architecture_yaml, shown.registered.by) == ("", "")
    assert shown.registered.architecture_sha256 == given.architecture_sha256
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="old"), timeout=5)

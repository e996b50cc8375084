"""Watched folders under a real control plane: new files become versions once they are finished, and
once only, whoever leads.
"""

import asyncio
import contextlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.fetching import watcher
from control_plane.store.memory_registry import MemoryRegistry
from tests.contract.control_plane_rig import Rig, refused
from tests.waiting import answered, becomes
from yolopool import errors
from yolopool.v1 import events_pb2, model_pb2, watches_pb2, watches_pb2_grpc

READY = model_pb2.VERSION_STATE_READY
pytestmark = pytest.mark.matrix(sample=1, of="watched folders")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


@contextlib.asynccontextmanager
async def pool(
    folder: Path, registry: MemoryRegistry | None = None, **more: Any
) -> AsyncIterator[Rig]:
    more.setdefault("source_roots", [str(folder)])
    async with Rig(folder.parent / "pool", registry, **more) as rig:
        yield rig


def drop(folder: Path, name: str, data: bytes, at: int) -> None:
    """A file that was written at a time, in Unix seconds."""
    (folder / name).write_bytes(data)
    os.utime(folder / name, (at, at))


async def call(rig: Rig, method: str, request: Any) -> Any:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = watches_pb2_grpc.WatchServiceStub(channel)
        return await getattr(stub, method)(request, timeout=5)


async def watch(rig: Rig, uri: str, model: str = "parts", **more: Any) -> Any:
    asked = watches_pb2.Watch(
        name="line7", uri=uri, model=model, **{"every_s": 1, "settle_s": 0.2, **more}
    )
    return (await call(rig, "SetWatch", watches_pb2.SetWatchRequest(watch=asked))).watch


async def known(rig: Rig) -> Any:
    return (await call(rig, "ListWatches", watches_pb2.ListWatchesRequest())).watches


async def files(rig: Rig, count: int, model: str = "parts") -> list[str]:
    """Names of the files of a model's versions, the oldest first, once there are so many."""

    async def versions() -> list[Any]:
        answer = await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
        return [one for each in answer.models if each.name == model for one in each.versions]

    found = await answered(
        versions, lambda seen: len(seen) >= count and all(one.artifact for one in seen)
    )
    return [one.source_name for one in reversed(found)]


async def test_the_newest_file_and_each_new_one_become_versions(folder: Path) -> None:
    drop(folder, "old.pt", b"old", 1_000)
    drop(folder, "new.pt", b"new", 2_000)
    drop(folder, "notes.txt", b"notes", 3_000)
    registry = MemoryRegistry()
    async with pool(folder, registry) as rig:
        held = await watch(rig, folder.as_uri())
        assert (held.uri, list(held.patterns)) == (f"{folder.as_uri()}/", ["*.pt", "*.onnx"])
        assert await files(rig, 1) == ["new.pt"]
        drop(folder, "old.pt", b"trained again", 4_000)
        assert await files(rig, 2) == ["new.pt", "old.pt"]
    # What was seen is in the store: the next control plane finds the file of meanwhile alone.
    drop(folder, "later.pt", b"later", 5_000)
    async with pool(folder, registry) as rig:
        assert await files(rig, 3) == ["new.pt", "old.pt", "later.pt"]
        await asyncio.sleep(1.5)  # of further looks nothing comes
        assert len(await files(rig, 3)) == 3
        assert [one.known_files for one in await known(rig)] == [3]


async def test_a_file_that_is_being_written_waits(folder: Path) -> None:
    async with pool(folder) as rig:
        await watch(rig, folder.as_uri(), settle_s=0.6)
        with (folder / "a.pt").open("wb") as file:
            for _ in range(8):
                file.write(b"part")
                file.flush()
                await asyncio.sleep(0.2)
            answer = await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
            assert not answer.models
        await files(rig, 1)
        digest = (await rig.models.GetModel(model_pb2.GetModelRequest(model="parts"))).model
        assert (rig.store / "artifacts" / digest.versions[0].artifact).read_bytes() == b"part" * 8


async def test_a_folder_that_is_gone_is_told_until_it_is_back(folder: Path) -> None:
    async with pool(folder) as rig:
        gone = folder / "mount"
        await watch(rig, gone.as_uri())
        await answered(lambda: known(rig), lambda watches: watches[0].error)
        assert (await known(rig))[0].error.startswith("SOURCE_NOT_FOUND: ")
        stream = rig.events.WatchEvents(
            events_pb2.WatchEventsRequest(kinds=[events_pb2.EVENT_KIND_WATCH_FAILED], last=10)
        )
        assert (await anext(aiter(stream))).reason == "SOURCE_NOT_FOUND"
        stream.cancel()
        gone.mkdir()
        drop(gone, "a.pt", b"a", 1_000)
        assert await files(rig, 1) == ["a.pt"]
        assert (await known(rig))[0].error == ""


async def test_a_version_that_watching_makes_is_set_as_the_one_before(folder: Path) -> None:
    async with pool(folder) as rig:
        settings = {"confidence": 0.4, "image_size": 320}
        await rig.register("parts", b"first", settings=settings)
        await watch(rig, folder.as_uri())
        drop(folder, "a.pt", b"a", 1_000)
        await files(rig, 2)
        newest = (await rig.models.GetModel(model_pb2.GetModelRequest(model="parts"))).model
        assert newest.versions[0].settings.image_size == 320
        assert newest.versions[0].settings.confidence == pytest.approx(0.4)


async def test_only_what_can_be_listed_and_is_allowed_is_watched(folder: Path) -> None:
    async with pool(folder) as rig:
        for uri, error in (
            ("https://example.com/models/", errors.SourceInvalid),
            ("file:///etc/", errors.SourceRefused),
            (f"{folder.as_uri()}/../", errors.SourceInvalid),
        ):
            assert isinstance(await refused(watch(rig, uri)), error)
        assert not list(await known(rig))
        request = watches_pb2.DeleteWatchRequest(name="line7")
        assert isinstance(await refused(call(rig, "DeleteWatch", request)), errors.WatchNotFound)


async def test_a_removed_watch_looks_no_more(folder: Path) -> None:
    async with pool(folder) as rig:
        await watch(rig, folder.as_uri())
        drop(folder, "a.pt", b"a", 1_000)
        await files(rig, 1)
        await call(rig, "DeleteWatch", watches_pb2.DeleteWatchRequest(name="line7"))
        drop(folder, "b.pt", b"b", 2_000)
        await asyncio.sleep(1.5)
        assert await files(rig, 1) == ["a.pt"]


def ready(rig: Rig) -> bool:
    try:
        with urllib.request.urlopen(f"http://{rig.addresses.http}/readyz", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


async def test_a_pool_at_the_edge_has_the_newest_before_it_is_ready(folder: Path) -> None:
    registry = MemoryRegistry()
    async with pool(folder, registry) as rig:
        await watch(rig, folder.as_uri())
    drop(folder, "a.pt", b"a", 1_000)
    async with pool(folder, registry, watch_before_serving_s=60) as rig:
        assert not await asyncio.to_thread(ready, rig)
        await rig.import_next()
        await answered(lambda: asyncio.to_thread(ready, rig), bool)
        model = (await rig.models.GetModel(model_pb2.GetModelRequest(model="parts"))).model
        assert model.versions[0].state == READY


async def test_a_store_that_is_away_does_not_hold_a_pool_at_the_edge_up(folder: Path) -> None:
    uri = (folder / "mount").as_uri()
    async with pool(folder, watch=[f"parts={uri}"], watch_before_serving_s=60) as rig:
        await answered(lambda: asyncio.to_thread(ready, rig), bool)


async def test_a_look_under_way_registers_nothing_for_a_watch_that_was_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its tenant is deleted: the model would come back after it."""
    drop(folder, "best.pt", b"weights", 1_000)
    async with pool(folder) as rig:
        downloads = rig.plane._services.intake._watcher._downloads
        listed, looks, goes_on = downloads.listed, [], asyncio.Event()

        async def held(source: Any) -> Any:
            found = await listed(source)
            looks.append(found)
            if len(looks) == 2:
                await goes_on.wait()
            return found

        monkeypatch.setattr(downloads, "listed", held)
        await watch(rig, folder.as_uri())
        await becomes(lambda: len(looks) == 2)
        request = watches_pb2.DeleteWatchRequest(name="line7")
        monkeypatch.setattr(watcher, "TICK_S", 60)  # the look is not ended meanwhile
        await call(rig, "DeleteWatch", request)
        goes_on.set()
        await asyncio.sleep(0.3)
        answer = await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
        assert not answer.models


async def test_folders_that_hang_hold_up_no_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As watches of a lost mount do."""
    drop(folder, "best.pt", b"weights", 1_000)
    ended = threading.Event()
    async with pool(folder) as rig:
        fetch, looks = rig.plane._services.intake._downloads, []

        def hangs(source: Any) -> Any:
            looks.append(source)
            ended.wait(20)
            return []

        monkeypatch.setattr(fetch.sources, "list", hangs)
        try:
            for number in range(20):
                asked = watches_pb2.Watch(
                    name=f"lost{number}", uri=folder.as_uri(), model="lost", every_s=1, settle_s=1
                )
                await call(rig, "SetWatch", watches_pb2.SetWatchRequest(watch=asked))
            await becomes(lambda: len(looks) >= 8)
            uri = (folder / "best.pt").as_uri()
            request = model_pb2.RegisterModelRequest(name="here", uri=uri)
            await rig.models.RegisterModel(request, timeout=5)
            assert await files(rig, 1, "here") == ["best.pt"]
        finally:
            ended.set()

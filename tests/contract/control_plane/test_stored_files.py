"""Files of the artifact store under a real control plane: a pack is taken over only if it is whole,
and what nothing uses is removed.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.files.unused import FileKind
from control_plane.types.access.api_key import Role
from tests.contract.control_plane_rig import Rig, refused
from tests.contract.guarded_rig import Guarded, issued
from tests.waiting import becomes
from yolopool import errors
from yolopool.server.clock import Clock
from yolopool.transport import bearer
from yolopool.v1 import importing_pb2, model_pb2, model_pb2_grpc

READY, UPLOADED = model_pb2.VERSION_STATE_READY, model_pb2.VERSION_STATE_UPLOADED
DAY_S = 86_400.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(rig: Rig) -> dict[str, set[str]]:
    kinds = ("artifacts", "packs", "partial")
    return {kind: {path.name for path in (rig.store / kind).iterdir()} for kind in kinds}


def age(rig: Rig, seconds: float = 2 * DAY_S) -> None:
    """Everything in the store was used so long ago."""
    for path in rig.store.rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


async def sweep(rig: Rig, **more: Any) -> dict[str, model_pb2.UnusedFile]:
    request = model_pb2.SweepStoreRequest(**more)
    answer = await rig.models.SweepStore(request, timeout=10)
    return {file.name: file for file in answer.files}


async def pack_of(rig: Rig, model: str) -> Path:
    answer = await rig.models.GetModel(model_pb2.GetModelRequest(model=model), timeout=5)
    return Path(rig.store, "packs", answer.model.versions[0].pack)


# --- packs that are taken over ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.json", "skeleton.json", "weights.bin"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
async def test_a_damaged_pack_is_not_taken_over_but_mended(
    rig: Rig, name: str, damage: str
) -> None:
    await rig.ready("a")
    file = await pack_of(rig, "a") / name
    whole = file.read_bytes()
    match damage:
        case "changed":
            file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        case "cut":
            file.write_bytes(whole[:-1])
        case "gone":
            file.unlink()
    again = await rig.register("b", b"a")
    assert again.state == UPLOADED
    await rig.import_next()
    assert file.read_bytes() == whole
    assert (await rig.register("c", b"a")).state == READY


async def test_a_build_takes_over_no_damaged_pack(rig: Rig) -> None:
    await rig.ready("a")
    (await pack_of(rig, "a") / "weights.bin").write_bytes(b"damaged")
    request = model_pb2.BuildModelRequest(
        model="a", backend="torch", precision="bf16", device_kind="cpu"
    )
    answer = await rig.models.BuildModel(request, timeout=5)
    assert answer.build.state == UPLOADED


async def test_a_pack_that_workers_refuse_is_not_taken_over(rig: Rig) -> None:
    """Whole, and perhaps made by another release."""
    worker = await rig.worker("w1")
    await rig.ready("a")
    worker.on_assign = errors.PackInvalid("its format is 0, this release reads 1")
    assert isinstance(await refused(rig.load("a")), errors.YolopoolError)
    assert (await rig.register("b", b"a")).state == UPLOADED


async def test_known_bytes_are_never_an_importers_job(rig: Rig) -> None:
    await rig.ready("a")

    async def claim(importer: int) -> importing_pb2.ClaimImportResponse:
        request = importing_pb2.ClaimImportRequest(importer=f"i{importer}", wait_s=0.5)
        answer: importing_pb2.ClaimImportResponse = await rig.importing.ClaimImport(request)
        return answer

    claims = [asyncio.create_task(claim(number)) for number in range(8)]
    for number in range(20):
        assert (await rig.register(f"b{number}", b"a")).state == READY
    assert [answer.HasField("job") for answer in await asyncio.gather(*claims)] == [False] * 8


# --- files that nothing uses ------------------------------------------------------------------


async def test_the_files_of_a_deleted_model_go_after_their_grace(rig: Rig) -> None:
    await rig.ready("a", "b")
    kept, gone = await pack_of(rig, "a"), await pack_of(rig, "b")
    age(rig)
    assert await sweep(rig) == {}
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="b"), timeout=5)
    told = await sweep(rig)  # its day begins now
    assert set(told) == {gone.name, digest_of(b"b")}
    assert not any(file.removed for file in told.values())
    assert all(DAY_S - 20 < file.keep_s <= DAY_S for file in told.values())
    told = await sweep(rig, grace_s=0, dry_run=True)
    assert not any(file.removed or file.keep_s for file in told.values())
    assert set(await sweep(rig, grace_s=0)) == set(told)
    assert stored(rig) == {"artifacts": {digest_of(b"a")}, "packs": {kept.name}, "partial": set()}
    assert await sweep(rig, grace_s=0) == {}


async def test_nothing_that_is_in_use_goes_however_old_it_is(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.ready("a", "twin")
    await rig.load("a")
    await rig.register("pending", b"pending")
    await rig.register("importing", b"importing")
    for _ in range(2):
        claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=1)
        await rig.importing.ClaimImport(claim, timeout=5)
    before = stored(rig)
    age(rig)
    assert await sweep(rig, grace_s=0) == {}
    assert stored(rig) == before


async def test_an_upload_that_runs_stays_and_a_broken_one_goes(rig: Rig) -> None:
    broken, running = b"0123456789", b"abcdefghij"
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def parts(data: bytes) -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        header = model_pb2.UploadHeader(sha256=digest_of(data), size_bytes=len(data))
        yield model_pb2.UploadArtifactRequest(header=header)
        yield model_pb2.UploadArtifactRequest(chunk=data[:5])
        if data is running:
            begun.set()
            await go_on.wait()
            yield model_pb2.UploadArtifactRequest(chunk=data[5:])

    await rig.models.UploadArtifact(parts(broken), timeout=10)
    upload = rig.models.UploadArtifact(parts(running), timeout=20)
    await begun.wait()
    await becomes(lambda: len(stored(rig)["partial"]) == 2)
    age(rig)
    told = await sweep(rig, grace_s=0)
    assert {name: file.kind for name, file in told.items()} == {digest_of(broken): "upload"}
    assert told[digest_of(broken)].removed
    go_on.set()
    assert (await upload).complete
    assert stored(rig)["artifacts"] == {digest_of(running)}


async def test_what_is_uploaded_or_registered_now_is_new(rig: Rig) -> None:
    await rig.upload(b"one")
    age(rig)
    assert set(await sweep(rig, dry_run=True)) == {digest_of(b"one")}
    assert (await rig.upload(b"one")).complete  # nothing is sent: it is there
    told = await sweep(rig, grace_s=0)
    assert not told[digest_of(b"one")].removed
    assert 0 < told[digest_of(b"one")].keep_s <= 10


async def test_leftovers_of_what_was_killed_go_and_strange_files_stay(rig: Rig) -> None:
    await rig.ready("a")
    left = rig.store / "packs" / ".incoming-abc"
    left.mkdir()
    (left / "weights.bin").write_bytes(b"half")
    strange = rig.store / "artifacts" / "README"
    strange.write_text("not ours")
    assert (await sweep(rig, grace_s=0))["packs/.incoming-abc"].keep_s > 3000
    age(rig)
    told = await sweep(rig)
    assert told["packs/.incoming-abc"].removed
    assert told["packs/.incoming-abc"].size_bytes == 4
    assert not left.exists()
    assert strange.exists()


async def test_files_of_another_store_are_never_removed(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("a")
        assert await sweep(rig) == {}
    async with Rig(tmp_path) as other:  # a new store in memory
        age(other)
        error = await refused(sweep(other, grace_s=0))
        assert isinstance(error, errors.FailedPrecondition)
        assert str(tmp_path / "store" / "cluster") in error.message
        assert stored(other)["artifacts"] == {digest_of(b"a")}


async def test_files_that_two_stores_use_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "one" / "store").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "store").symlink_to(tmp_path / "one" / "store")
    async with Rig(tmp_path / "one") as one, Rig(tmp_path / "two") as two:
        assert await sweep(one) == {}
        await two.upload(b"of two")
        age(one)
        for rig in (two, one, two):
            error = await refused(sweep(rig, grace_s=0))
            assert isinstance(error, errors.FailedPrecondition)
        assert stored(one)["artifacts"] == {digest_of(b"of two")}


async def test_images_to_calibrate_with_are_in_use_from_the_call_on(rig: Rig) -> None:
    await rig.ready("a")
    await rig.upload(b"images")
    age(rig)
    request = model_pb2.BuildModelRequest(
        model="a",
        backend="openvino",
        precision="int8",
        device_kind="cpu",
        calibration=digest_of(b"images"),
    )
    await rig.models.BuildModel(request, timeout=5)
    used = (rig.store / "artifacts" / digest_of(b"images")).stat().st_mtime
    assert used > time.time() - DAY_S


async def test_a_file_that_cant_be_removed_keeps_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ready("a")
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="a"), timeout=5)
    monkeypatch.setattr(shutil, "rmtree", lambda _: Path("/proc/self").rmdir())  # raises
    told = await sweep(rig, grace_s=0)
    assert [(file.kind, file.removed) for file in told.values() if file.removed] == [
        ("artifact", True)
    ]
    assert len(told) == 2


async def test_nothing_is_removed_while_the_store_is_away(rig: Rig) -> None:
    await rig.upload(b"one")
    age(rig)
    rig.registry.empty()  # type: ignore[attr-defined] # the store in memory
    error = await refused(sweep(rig, grace_s=0))
    assert isinstance(error, errors.RegistryUnavailable)
    assert stored(rig)["artifacts"] == {digest_of(b"one")}


async def test_the_control_plane_sweeps_what_it_saw_unused_for_its_grace(tmp_path: Path) -> None:
    """However old a file is: the store may have come back without its last versions."""
    now_s = 0.0
    async with Rig(tmp_path, sweep_grace_s=60) as rig:
        sweeper = rig.plane._sweeper
        sweeper._grace_s = 0.2  # shorter than any setting
        sweeper._clock = Clock(lambda: now_s, time.time)
        await rig.upload(b"one")
        age(rig)
        sweeping = asyncio.create_task(sweeper.run())
        await becomes(lambda: sweeper._unused_since_s)
        await sweeper.sweep(None, dry_run=False, watched_s=0.2)
        assert stored(rig)["artifacts"] == {digest_of(b"one")}
        await rig.register("a", b"one")
        now_s = 1.0
        await sweeper.sweep(None, dry_run=False, watched_s=0.2)
        assert not sweeper._unused_since_s
        await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="a"), timeout=5)
        age(rig)
        await becomes(lambda: sweeper._unused_since_s)
        assert stored(rig)["artifacts"] == {digest_of(b"one")}
        now_s = 2.0
        await becomes(lambda: not stored(rig)["artifacts"])
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), float("inf")])
async def test_a_grace_that_is_none_is_refused(rig: Rig, grace_s: float) -> None:
    assert isinstance(await refused(sweep(rig, grace_s=grace_s)), errors.InvalidOption)


# --- whose parts are whose ---------------------------------------------------------------------


async def test_no_caller_spoils_what_another_sends(tmp_path: Path) -> None:
    """Who knows the digest sends other bytes under it: they are in a part of their own."""
    kinds = {
        "north": issued(Role.OPERATE, tenant="north"),
        "north again": issued(Role.OPERATE, tenant="north"),
        "south": issued(Role.OPERATE, tenant="south"),
    }
    rig = Guarded(tmp_path)
    rig.kinds |= kinds
    async with rig, grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = model_pb2_grpc.ModelServiceStub(channel)

        async def send(kind: str, data: bytes, offset: int = 0) -> Any:
            header = model_pb2.UploadHeader(
                sha256=digest_of(b"right" * 4), size_bytes=20, offset=offset
            )

            async def parts() -> AsyncIterator[model_pb2.UploadArtifactRequest]:
                yield model_pb2.UploadArtifactRequest(header=header)
                if data:
                    yield model_pb2.UploadArtifactRequest(chunk=data)

            return await stub.UploadArtifact(parts(), timeout=5, metadata=bearer(rig.secret(kind)))

        assert (await send("operate", b"right")).received_bytes == 5
        assert (await send("south", b"wrong")).received_bytes == 5
        assert (await send("north", b"")).received_bytes == 0  # nor is it told of theirs
        await send("north", b"rightright")
        # Each goes on where it was; a tenant's other key with what the first had sent.
        assert (await send("north again", b"right", 10)).received_bytes == 15
        assert isinstance(await refused(send("operate", b"right", 15)), errors.InvalidOffset)
        assert (await send("operate", b"right" * 3, 5)).complete
        assert (await send("north", b"")).complete
        assert (await send("south", b"!" * 15, 5)).complete  # it is there, and is not sent again
        assert (rig.store / "artifacts" / digest_of(b"right" * 4)).read_bytes() == b"right" * 4


async def test_a_callers_part_goes_on_at_another_control_plane_and_is_swept(
    tmp_path: Path,
) -> None:
    async with Guarded(tmp_path) as rig:
        one = FolderArtifacts(rig.store, 100)
        async with one.upload(digest_of(b"right"), 5, 0, "key:1") as upload:
            await upload.write(b"ri")
        other = FolderArtifacts(rig.store, 100)
        assert other.held_bytes(digest_of(b"right"), "key:1") == 2
        assert other.held_bytes(digest_of(b"right"), "key:2") == 0
        (file,) = [one for one in other.files() if one.kind is FileKind.UPLOAD]
        assert await other.remove(file)
        assert other.held_bytes(digest_of(b"right"), "key:1") == 0

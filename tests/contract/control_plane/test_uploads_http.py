"""Files by HTTP: the newcomer's one line, uploads that break and go on, and what is refused."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.store.files import artifacts
from tests.contract.control_plane.test_admin_http import fits, problem
from tests.contract.control_plane_rig import Rig, refused
from tests.waiting import becomes
from yolopool.v1 import importing_pb2, model_pb2

LIMIT = 4_000_000
DATA = os.urandom(1_500_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, max_artifact_bytes=LIMIT) as one:
        yield one


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as client:
        yield client


def left(rig: Rig) -> list[str]:
    """What uploads left beside whole artifacts."""
    return [path.name for path in (rig.store / "partial").iterdir()]


async def cut(rig: Rig, path: str, headers: str, data: bytes) -> None:
    """Sends a part of a body, and leaves once most of it has arrived."""
    host, port = rig.addresses.http.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"PUT {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n".encode() + data)
    partial = rig.store / "partial"
    await becomes(lambda: any(one.stat().st_size > 600_000 for one in partial.iterdir()))
    writer.close()
    await writer.wait_closed()


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_one_line_of_curl_makes_a_model(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    file.write_bytes(DATA)
    address = f"http://{rig.addresses.http}/v1/models"
    told, _ = await asyncio.gather(
        curl("-T", str(file), "-w", "%{http_code}", f"{address}/team/best"), rig.import_next()
    )
    assert told.endswith("201")
    version = next(iter(rig.plane.view.desired.versions.values()))
    assert (str(version.key), version.artifact) == ("team/best@1", SHA)
    assert (rig.store / "artifacts" / SHA).read_bytes() == DATA
    # A stream, whose size nobody knows, is the next version.
    command = f"curl -sS -m 20 -T - '{address}/team/best?image_size=320&wait=false' < {file}"
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert b'"version":2' in out.replace(b" ", b"")
    assert left(rig) == []


async def test_settings_of_the_query_are_the_versions(rig: Rig, http: httpx.AsyncClient) -> None:
    query: list[tuple[str, Any]] = [
        ("image_size", 640), ("image_sizes", 320), ("image_sizes", 960), ("confidence", 0),
        ("shape_policy", "SHAPE_POLICY_SQUARE"), ("class_names", "bolt"),
        ("class_names", "nut, M3"), ("source_name", "best.pt"), ("request_id", "once"),
        ("wait", "false"),
    ]  # fmt: skip
    answer = await http.put("/v1/models/a", params=query, content=DATA)
    version = fits(answer, 202)
    assert answer.headers["location"] == "/v1/models/a@1"
    assert version["settings"]["image_sizes"] == [320, 960]
    assert version["settings"]["confidence"] == 0.0
    assert "iou" not in version["settings"]
    assert version["settings"]["shape_policy"] == "SHAPE_POLICY_SQUARE"
    assert version["source_name"] == "best.pt"
    claim = importing_pb2.ClaimImportRequest(importer="i", wait_s=5)
    job = (await rig.importing.ClaimImport(claim, timeout=10)).job
    assert list(job.class_names) == ["bolt", "nut, M3"]
    # The same request once more is the same version.
    assert fits(await http.put("/v1/models/a", params=query, content=DATA), 202) == version | {
        "state": "VERSION_STATE_IMPORTING"
    } | {key: fits(await http.get("/v1/models/a"), 200)["versions"][0][key] for key in ("step",)}


async def test_an_import_that_failed_is_told_by_the_version(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    failure = importing_pb2.ImportFailure(reason="NOT_A_MODEL", message="no weights inside")
    put, _ = await asyncio.gather(http.put("/v1/models/a", content=DATA), rig.import_next(failure))
    version = fits(put, 201)
    assert (version["state"], version["reason"]) == ("VERSION_STATE_FAILED", "NOT_A_MODEL")


async def test_what_can_not_be_registered_is_refused_before_it_is_sent(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    for name in ("A", "..%2Fa", "a@2", "a/b/c", "a+torch-bf16-cpu"):
        problem(await http.put(f"/v1/models/{name}", content=DATA), 400, "INVALID_MODEL_NAME")
    for query, named in (
        ("confidence=2", "confidence"),
        ("image_size=7", "image_size"),
        ("imgsz=640", "imgsz"),
    ):
        refused = problem(
            await http.put(f"/v1/models/a?{query}", content=DATA), 400, "INVALID_OPTION"
        )
        assert named in refused["detail"]
    for query in ("confidence=nan", "image_size=x", "wait=perhaps", "head_mode=best"):
        assert (await http.put(f"/v1/models/a?{query}", content=DATA)).status_code == 400
    form = await http.put("/v1/models/a", files={"file": DATA})
    assert "curl -T" in problem(form, 400, "INVALID_OPTION")["detail"]
    # A misspelt path of a setting makes no model of its body.
    problem(await http.put("/v1/models/a/residncy", json={}), 400, "INVALID_OPTION")
    problem(await http.put("/v1/models/a", content=b""), 400, "INVALID_OPTION")
    large = await http.put("/v1/models/a", content=bytes(LIMIT + 1))
    problem(large, 413, "ARTIFACT_TOO_LARGE")
    # A part, as curl -C sends it, and bytes that would have to be unpacked.
    part = {"content-range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}"}
    of_part = await http.put("/v1/models/a", content=DATA[100:], headers=part)
    assert "Content-Range" in problem(of_part, 400, "INVALID_OPTION")["detail"]
    for path in ("/v1/models/a", f"/v1/artifacts/{SHA}"):
        packed = await http.put(path, content=DATA, headers={"content-encoding": "gzip"})
        problem(packed, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert not rig.plane.view.desired.versions
    assert left(rig) == []


async def test_a_stream_that_grows_too_large_leaves_nothing(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    async def many() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield bytes(100_000)

    try:
        answer = await http.put("/v1/models/a", content=many())
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # it was closed while more came
    await becomes(lambda: left(rig) == [])
    assert not list((rig.store / "artifacts").iterdir())


async def test_a_caller_who_leaves_leaves_nothing_of_an_unnamed_file(rig: Rig) -> None:
    await cut(rig, "/v1/models/a", f"content-length: {len(DATA)}", DATA[:700_000])
    await becomes(lambda: left(rig) == [])
    assert not rig.plane.view.desired.versions


async def test_an_upload_that_broke_goes_on_where_it_ended(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    path = f"/v1/artifacts/{SHA}"
    none = await http.head(path)
    assert (none.status_code, none.headers["upload-offset"]) == (404, "0")
    problem(await http.get(path), 404, "ARTIFACT_NOT_FOUND")
    await cut(rig, path, f"content-length: {len(DATA)}", DATA[:700_000])
    held = rig.store / "partial" / SHA
    some = await http.head(path)
    assert some.status_code == 200
    assert some.headers["upload-complete"] == "?0"
    offset = int(some.headers["upload-offset"])
    assert 0 < offset <= 700_000
    assert held.read_bytes() == DATA[:offset]
    # In two parts, the second of which ends it.
    middle = offset + 100_000

    def part(first: int, last: int) -> Any:
        headers = {"content-range": f"bytes {first}-{last - 1}/{len(DATA)}"}
        return http.put(path, content=DATA[first:last], headers=headers)

    more = await part(offset, middle)
    assert fits(more, 202) == {"complete": False, "received_bytes": middle, "sha256": SHA}
    assert more.headers["upload-offset"] == str(middle)
    wrong = problem(await part(offset, middle), 400, "INVALID_OFFSET")
    assert wrong["details"]["received_bytes"] == str(middle)
    assert fits(await part(middle, len(DATA)), 201)["complete"]
    assert fits(await http.get(path), 200) == {
        "complete": True, "received_bytes": len(DATA), "sha256": SHA,
    }  # fmt: skip
    assert (rig.store / "artifacts" / SHA).read_bytes() == DATA
    assert fits(await http.put(path, content=DATA), 200)["complete"]
    registered = await http.post("/v1/models", json={"name": "a", "artifact": SHA})
    assert fits(registered, 202)["artifact"] == SHA


async def test_the_same_command_again_goes_on_too(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    file.write_bytes(DATA)
    url = f"http://{rig.addresses.http}/v1/artifacts/{SHA}"
    held = rig.store / "partial" / SHA
    held.write_bytes(DATA[:400_000])
    assert (await curl("-T", str(file), "-w", "%{http_code}", url)).endswith("201")
    (rig.store / "artifacts" / SHA).rename(held)
    os.truncate(held, 900_000)
    told = await curl("-C", "900000", "-T", str(file), "-w", "%{http_code}", url)
    assert told.endswith("201")
    assert (rig.store / "artifacts" / SHA).read_bytes() == DATA


async def test_an_upload_that_was_cut_before_its_end_is_ended_by_any_put(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    path, held = f"/v1/artifacts/{SHA}", rig.store / "partial" / SHA
    last = {"content-range": f"bytes {len(DATA) - 5}-{len(DATA) - 1}/{len(DATA)}"}
    for headers, body in (({}, DATA), (last, DATA[-5:])):
        held.write_bytes(DATA)  # all came, and the process was killed before it was verified
        look = await http.head(path)
        assert look.headers["upload-complete"] == "?0"
        assert fits(await http.put(path, content=body, headers=headers), 201)["complete"]
        assert (rig.store / "artifacts" / SHA).read_bytes() == DATA
        assert left(rig) == []
        (rig.store / "artifacts" / SHA).unlink()
    # Of other bytes nothing stays, and the file is taken the next time.
    held.write_bytes(bytes(len(DATA)))
    problem(await http.put(path, content=DATA), 422, "DIGEST_MISMATCH")
    assert fits(await http.put(path, content=DATA), 201)["complete"]


async def test_more_bytes_than_the_file_has_do_not_stand_in_its_way(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    path = f"/v1/artifacts/{SHA}"
    (rig.store / "partial" / SHA).write_bytes(bytes(len(DATA) + 1))
    assert fits(await http.put(path, content=DATA), 201)["complete"]
    assert (rig.store / "artifacts" / SHA).read_bytes() == DATA
    assert left(rig) == []


async def test_of_two_control_planes_with_one_folder_one_receives_a_file(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    """A balancer sends the repeat of a caller elsewhere, before the first has noticed its end."""
    path, other = f"/v1/artifacts/{SHA}", artifacts.FolderArtifacts(rig.store, LIMIT)
    async with other.upload(SHA, len(DATA), 0) as upload:
        await upload.write(DATA[:700_000])
        # It is on the disk, whoever looks.
        assert (await http.head(path)).headers["upload-offset"] == "700000"
        busy = await http.put(path, content=DATA)
        assert problem(busy, 503, "STORAGE_FAILED")["retryable"]
        assert busy.headers["retry-after"] == "1"
        await upload.write(DATA[700_000:])
    stored = rig.store / "artifacts" / SHA
    assert stored.read_bytes() == DATA
    assert fits(await http.put(path, content=DATA), 200)["complete"]
    # And where the first was cut off the second goes on.
    stored.rename(rig.store / "partial" / SHA)
    os.truncate(rig.store / "partial" / SHA, 1000)
    assert fits(await http.put(path, content=DATA), 201)["complete"]
    assert stored.read_bytes() == DATA


async def test_bytes_that_are_not_what_was_said_are_refused(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    path = f"/v1/artifacts/{SHA}"
    problem(await http.put(path, content=b"x" + DATA[1:]), 422, "DIGEST_MISMATCH")
    assert left(rig) == []
    assert fits(await http.put(path, content=DATA), 201)["complete"]
    other = hashlib.sha256(b"other").hexdigest()
    for said in (
        "bytes 0-9/5", "bytes 5-2/9", "bytes */9", "bytes 0-4/*", "octets 0-4/5", "bytes 0-4/5/6",
        "bytes 0-3/5", "bytes 3-7/9", "bytes -1-3/9", "bytes 0-4/99999999999999999999",
    ):  # fmt: skip
        answer = await http.put(
            f"/v1/artifacts/{other}", content=b"other", headers={"content-range": said}
        )
        assert answer.status_code == 400, said
        assert answer.json()["reason"] in ("INVALID_OFFSET", "INVALID_OPTION")
    for digest in ("no", SHA.upper(), f"{SHA}0", "%00" * 64):
        problem(await http.put(f"/v1/artifacts/{digest}", content=b"a"), 400, "INVALID_DIGEST")
        problem(await http.get(f"/v1/artifacts/{digest}"), 400, "INVALID_DIGEST")
    assert [path.name for path in (rig.store / "artifacts").iterdir()] == [SHA]


async def test_two_uploads_of_one_file_are_one_artifact(rig: Rig, http: httpx.AsyncClient) -> None:
    puts = [http.put(f"/v1/models/m{index}?wait=false", content=DATA) for index in range(4)]
    versions = [fits(answer, 202) for answer in await asyncio.gather(*puts)]
    assert {version["artifact"] for version in versions} == {SHA}
    assert left(rig) == []
    other = os.urandom(1_000_000)
    path = f"/v1/artifacts/{hashlib.sha256(other).hexdigest()}"
    together = await asyncio.gather(*(http.put(path, content=other) for _ in range(4)))
    assert sorted(answer.status_code for answer in together) == [200, 200, 200, 201]
    assert all(answer.json()["complete"] for answer in together)


async def test_a_full_disk_is_told_and_nothing_stays(
    rig: Rig, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "settle", full)
    answer = problem(await http.put("/v1/models/a", content=DATA), 507, "DISK_FULL")
    assert answer["details"]["place"] == str(rig.store)
    assert left(rig) == []
    monkeypatch.undo()
    fits(await http.put("/v1/models/a?wait=false", content=DATA), 202)


async def test_what_a_killed_upload_left_is_swept(rig: Rig, http: httpx.AsyncClient) -> None:
    leftover = rig.store / "partial" / ".incoming-0123"
    leftover.write_bytes(DATA)
    swept = fits(await http.post("/v1/store/sweep", json={"grace_s": 0}), 200)["files"]
    assert [(one["kind"], one["removed"]) for one in swept] == [("leftover", False)]
    os.utime(leftover, (0, 0))
    swept = fits(await http.post("/v1/store/sweep", json={"grace_s": 0}), 200)["files"]
    assert [one["removed"] for one in swept] == [True]
    assert left(rig) == []


async def test_by_grpc_too_a_file_may_be_sent_without_its_digest(rig: Rig) -> None:
    async def parts(size: int, offset: int = 0) -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        header = model_pb2.UploadHeader(size_bytes=size, offset=offset)
        yield model_pb2.UploadArtifactRequest(header=header)
        for at in range(0, len(DATA), 500_000):
            yield model_pb2.UploadArtifactRequest(chunk=DATA[at : at + 500_000])

    # The end of an upload all of whose bytes are held is a header alone.
    (rig.store / "partial" / SHA).write_bytes(DATA)
    held = model_pb2.UploadHeader(sha256=SHA, size_bytes=len(DATA))
    for offset, complete in ((0, False), (len(DATA), True)):
        held.offset = offset
        header = model_pb2.UploadArtifactRequest(header=held)
        answer = await rig.models.UploadArtifact(iter([header]), timeout=10)
        assert (answer.complete, answer.received_bytes) == (complete, len(DATA))
    for size in (0, len(DATA)):
        answer = await rig.models.UploadArtifact(parts(size), timeout=10)
        assert (answer.complete, answer.sha256) == (True, SHA)
    for wrong in (parts(5), parts(len(DATA) + 1), parts(0, 7)):
        error = await refused(rig.models.UploadArtifact(wrong, timeout=10))
        assert error.reason == "INVALID_OFFSET"
    assert left(rig) == []

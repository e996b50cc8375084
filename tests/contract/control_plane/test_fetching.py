"""Files that the pool fetches itself: whatever a store does, a version is READY with exactly the
file's bytes, or FAILED with a reason, and nothing half is left.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from control_plane.store.memory_registry import MemoryRegistry
from tests.contract.broken_server import Turn, broken_server
from tests.contract.control_plane_rig import Rig, refused
from tests.full_disk import full_disk
from tests.waiting import answered, becomes
from yolopool import errors
from yolopool.v1 import model_pb2, rules_pb2, rules_pb2_grpc

FILE = os.urandom(3 * 1024 * 1024 + 17)
OTHER = os.urandom(len(FILE))
SHA = hashlib.sha256(FILE).hexdigest()
HERE: dict[str, Any] = {
    "source_private_networks": ["127.0.0.0/8"],
    "fetch_timeout_s": 20.0,
    "max_artifact_bytes": 10**8,
}
READY, FAILED = model_pb2.VERSION_STATE_READY, model_pb2.VERSION_STATE_FAILED
UPLOADED = model_pb2.VERSION_STATE_UPLOADED
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.matrix(sample=5, of="fetched files"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with Rig(tmp_path_factory.mktemp("pool"), **HERE) as one:
        yield one


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def emptied(rig: Rig) -> None:
    """A file that is there by its digest would not be fetched."""
    listed = await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
    for model in listed.models:
        await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model=model.name), timeout=5)
    for path in (rig.store / "artifacts").iterdir():
        path.unlink()


def stored(rig: Rig) -> dict[str, set[str]]:
    return {
        kind: {path.name for path in (rig.store / kind).iterdir()}
        for kind in ("artifacts", "partial")
    }


async def register(rig: Rig, name: str, uri: str, **more: Any) -> Any:
    request = model_pb2.RegisterModelRequest(name=name, uri=uri, **more)
    return (await rig.models.RegisterModel(request, timeout=30)).version


async def version_of(rig: Rig, name: str) -> Any:
    answer = await rig.models.GetModel(model_pb2.GetModelRequest(model=name), timeout=5)
    return answer.model.versions[0]


async def arrives(rig: Rig, name: str) -> Any:
    """The version once its file is there, or FAILED."""
    return await answered(
        lambda: version_of(rig, name), lambda version: version.artifact or version.state == FAILED
    )


async def waits_after(rig: Rig, name: str, reason: str) -> None:
    await answered(lambda: version_of(rig, name), lambda version: reason in version.step)


@dataclass(frozen=True)
class Case:
    """What a server does, and what becomes of the version: its bytes, or the reason."""

    turns: tuple[Turn, ...]
    bytes_: bytes = FILE
    reason: str = ""
    sha256: str = ""
    limit_s: float = 20.0


half, third = len(FILE) // 2, len(FILE) // 3
CASES = {
    "whole": Case((Turn(FILE),)),
    "cut twice": Case((Turn(FILE, cut_after=third), Turn(FILE, cut_after=third), Turn(FILE))),
    "cut before the first byte": Case((Turn(FILE, cut_after=0), Turn(FILE))),
    "changed after a cut": Case((Turn(FILE, cut_after=half), Turn(OTHER, '"two"')), OTHER),
    "changed between look and read": Case(
        (Turn(FILE, cut_after=half), Turn(FILE), Turn(OTHER, '"two"')), OTHER
    ),
    "changed under one etag": Case(
        (Turn(FILE, cut_after=half), Turn(OTHER)), reason="DIGEST_MISMATCH", sha256=SHA
    ),
    "cut, without an etag": Case((Turn(FILE, "", cut_after=half), Turn(FILE, ""))),
    "cut, with a weak etag": Case((Turn(FILE, 'W/"a"', cut_after=half), Turn(FILE, 'W/"a"'))),
    "cut, without ranges": Case(
        (Turn(FILE, cut_after=half), Turn(FILE, takes_ranges=False))
    ),
    "another digest": Case((Turn(OTHER),), reason="DIGEST_MISMATCH", sha256=SHA),
    "the digest": Case((Turn(FILE),), sha256=SHA),
    "a length that is too long": Case(
        (Turn(FILE, length=len(FILE) + 9),), reason="SOURCE_UNAVAILABLE"
    ),
    "a length that is too short": Case(
        (Turn(FILE, length=half),), reason="DIGEST_MISMATCH", sha256=SHA
    ),
    "too large": Case((Turn(FILE, length=10**8 + 1),), reason="ARTIFACT_TOO_LARGE"),
    "no length": Case((Turn(FILE, length=-1),), reason="SOURCE_INVALID"),
    "no length, with the digest": Case((Turn(FILE, length=-1),), sha256=SHA),
    "no length, cut": Case(
        (Turn(FILE, length=-1, cut_after=half),), reason="DIGEST_MISMATCH", sha256=SHA
    ),
    "too slow": Case((Turn(FILE, slow_s=0.5),), reason="SOURCE_UNAVAILABLE"),
    "busy, then there": Case((Turn(status=503), Turn(status=500), Turn(FILE))),
    "gone": Case((Turn(status=404),), reason="SOURCE_NOT_FOUND"),
    "forbidden": Case((Turn(status=403),), reason="SOURCE_DENIED"),
    "compressed": Case((Turn(FILE, encoding="gzip"),), reason="SOURCE_UNAVAILABLE"),
    "empty": Case((Turn(b"", length=-1),), reason="SOURCE_INVALID"),
    "a redirect": Case((Turn(status=302, location="/there"), Turn(FILE))),
    "redirects for ever": Case(
        (Turn(status=302, location="/there"),), reason="SOURCE_UNAVAILABLE"
    ),
    "a redirect into the network": Case(
        (Turn(status=302, location="http://169.254.169.254/latest"),), reason="SOURCE_REFUSED"
    ),
    "a redirect to a file": Case(
        (Turn(status=302, location="file:///etc/passwd"),), reason="SOURCE_REFUSED"
    ),
    "a redirect with a password": Case(
        (Turn(status=302, location="http://me:hunter2@127.0.0.1/a"),), reason="SOURCE_REFUSED"
    ),
}  # fmt: skip
# They are given up at a time limit, which is made short.
SHORT = {"a length that is too long", "too slow", "compressed", "redirects for ever"}


@pytest.mark.parametrize("name", CASES)
async def test_a_version_has_the_file_or_a_reason(
    name: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, model = CASES[name], name.replace(",", "").replace(" ", "-")
    if name in SHORT:
        monkeypatch.setattr(rig.plane._services.intake._fetcher, "_limit_s", 1.0)
    with broken_server(*case.turns) as server:
        uri = f"{server.url}/best.pt"
        made = await register(rig, model, uri, artifact=case.sha256)
        assert (made.state, made.uri, made.source_name) == (UPLOADED, uri, "best.pt")
        version = await arrives(rig, model)
    if case.reason:
        assert (version.state, version.reason) == (FAILED, case.reason)
        assert version.message
        assert "hunter2" not in version.message
        assert not stored(rig)["artifacts"]
    else:
        assert version.artifact == hashlib.sha256(case.bytes_).hexdigest()
        assert (rig.store / "artifacts" / version.artifact).read_bytes() == case.bytes_


async def test_what_was_received_is_not_asked_for_again(rig: Rig) -> None:
    cut = Turn(FILE, cut_after=len(FILE) - 1000)
    with broken_server(cut, cut, Turn(FILE)) as server:
        await register(rig, "resumed", f"{server.url}/best.pt")
        version = await arrives(rig, "resumed")
    assert version.artifact == SHA
    last = server.asked[-1]
    assert last.if_range == '"one"'
    assert int(last.range_.removeprefix("bytes=").rstrip("-")) > half


async def test_an_import_follows_and_a_second_version_needs_none(rig: Rig) -> None:
    data = os.urandom(1000)
    with broken_server(Turn(data)) as server:
        await register(rig, "imported", f"{server.url}/best.pt")
        await rig.import_next()
        assert (await version_of(rig, "imported")).state == READY
        await register(rig, "imported", f"{server.url}/best.pt")
        await answered(lambda: version_of(rig, "imported"), lambda version: version.state == READY)


async def test_a_file_that_is_there_by_its_digest_is_not_fetched(rig: Rig) -> None:
    data = os.urandom(100)
    await rig.upload(data)
    digest = hashlib.sha256(data).hexdigest()
    with broken_server(Turn(status=500)) as server:
        made = await register(rig, "known", f"{server.url}/best.pt", artifact=digest)
        assert made.artifact == digest
        assert not server.asked
    await rig.import_next()


@pytest.mark.parametrize("turn", [Turn(FILE), Turn(FILE, length=-1)], ids=["told", "not told"])
async def test_a_file_that_a_rule_has_no_room_for(turn: Turn, rig: Rig) -> None:
    """Also if the server does not tell its size; then it is known once the file is there."""
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        rules: Any = rules_pb2_grpc.RuleServiceStub(channel)
        room = len(FILE) + half
        request = rules_pb2.SetStoreRuleRequest(pattern="team/*", store_bytes=room)
        await rules.SetStoreRule(request, timeout=5)
    with broken_server(Turn(OTHER)) as server:
        await register(rig, "team/one", f"{server.url}/best.pt")
        assert (await arrives(rig, "team/one")).artifact
    with broken_server(turn) as server:
        await register(rig, "team/two", f"{server.url}/best.pt", artifact=SHA)
        version = await arrives(rig, "team/two")
        assert (version.state, version.reason) == (FAILED, "STORE_QUOTA")
        await register(rig, "other", f"{server.url}/best.pt", artifact=SHA)
        assert (await arrives(rig, "other")).artifact == SHA


async def test_files_that_come_together_have_no_more_room(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        rules: Any = rules_pb2_grpc.RuleServiceStub(channel)
        request = rules_pb2.SetStoreRuleRequest(pattern="both/*", store_bytes=len(FILE) + half)
        await rules.SetStoreRule(request, timeout=5)
    slow = [Turn(data, slow_s=0.005) for data in (FILE, OTHER)]
    with broken_server(slow[0]) as a, broken_server(slow[1]) as b:
        await register(rig, "both/a", f"{a.url}/best.pt")
        await register(rig, "both/b", f"{b.url}/best.pt")
        found = [await arrives(rig, name) for name in ("both/a", "both/b")]
    assert sorted(version.reason for version in found) == ["", "STORE_QUOTA"]


async def test_deleting_a_version_ends_its_fetch(rig: Rig) -> None:
    with broken_server(Turn(FILE, slow_s=0.2)) as server:
        await register(rig, "cancelled", f"{server.url}/best.pt")
        tasks = rig.plane._services.intake._fetcher._tasks
        await becomes(lambda: server.sent_bytes > 0)
        await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="cancelled"), timeout=5)
        await becomes(lambda: not any(key.model == "cancelled" for key in tasks))
        sent = server.sent_bytes
        await asyncio.sleep(0.5)
        assert server.sent_bytes <= sent + len(FILE) // 25


async def test_a_store_that_is_away_is_waited_for(rig: Rig) -> None:
    with broken_server(Turn(FILE, cut_after=half)) as server:
        port = int(server.url.rpartition(":")[2])
        await register(rig, "away", f"{server.url}/best.pt")
        await becomes(lambda: server.sent_bytes >= half)
    await waits_after(rig, "away", "SOURCE_UNAVAILABLE")
    with broken_server(Turn(FILE), port=port) as server:
        version = await arrives(rig, "away")
    assert version.artifact == SHA
    assert any(one.range_ for one in server.asked), "it went on from where it broke off"


async def test_a_registry_that_is_away_costs_no_second_download(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = rig.plane._services.intake._fetcher._registration._sources
    fetched, tries = records.fetched, []

    async def away_twice(*args: Any) -> Any:
        tries.append(args)
        if len(tries) < 3:
            raise errors.RegistryUnavailable("it is away")
        return await fetched(*args)

    monkeypatch.setattr(records, "fetched", away_twice)
    with broken_server(Turn(FILE)) as server:
        await register(rig, "late", f"{server.url}/best.pt")
        assert (await arrives(rig, "late")).artifact == SHA
        assert len(server.asked) == 1


async def test_a_full_disk_is_told_and_waited_for(rig: Rig) -> None:
    with broken_server(Turn(FILE)) as server:
        with full_disk(half):
            await register(rig, "full", f"{server.url}/best.pt")
            await waits_after(rig, "full", "DISK_FULL")
        assert (await arrives(rig, "full")).artifact == SHA


async def test_the_next_leader_goes_on_with_what_is_in_the_store(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    with broken_server(Turn(FILE, cut_after=half), Turn(status=503), Turn(FILE)) as server:
        async with Rig(tmp_path, registry, **HERE) as first:
            await register(first, "handed", f"{server.url}/best.pt")
            await becomes(lambda: server.sent_bytes >= half)
        async with Rig(tmp_path, registry, **HERE) as second:
            version = await arrives(second, "handed")
            assert version.artifact == SHA
            assert server.asked[-1].range_ == f"bytes={half}-"


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("http://me:hunter2@127.0.0.1/a.pt", errors.SourceInvalid),
        ("http://10.0.0.1/a.pt", errors.SourceRefused),
        ("file:///etc/passwd", errors.SourceRefused),
        ("nonsense", errors.SourceInvalid),
    ],
)
async def test_what_may_not_be_read_makes_no_version(
    uri: str, error: type[errors.YolopoolError], rig: Rig
) -> None:
    request = model_pb2.RegisterModelRequest(name="never", uri=uri)
    said = await refused(rig.models.RegisterModel(request, timeout=5))
    assert isinstance(said, error)
    assert "hunter2" not in said.message
    listed = await rig.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
    assert "never" not in [model.name for model in listed.models]


async def test_a_name_that_leads_into_the_network_is_refused_where_it_is_resolved(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a name server that answers otherwise the second time: what is connected to is what
    was looked at.
    """
    asked: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        address = "8.8.8.8" if len(asked) > 1 else "192.168.7.7"
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr("control_plane.sources.guarded_connection.getaddrinfo", lookup)
    await register(rig, "rebound", "http://models.example.com/a.pt")
    version = await arrives(rig, "rebound")
    assert version.reason == "SOURCE_REFUSED"
    assert asked == ["models.example.com"]
    assert "192.168" not in version.message

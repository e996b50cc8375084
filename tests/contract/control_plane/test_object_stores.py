"""S3 by a local server: files are fetched and watched by the credentials of the environment or of a
profile, and no error tells of them.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from control_plane.sources.object_file import ObjectStores
from control_plane.sources.opening import Sources
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, parse
from control_plane.types.sources.source import Source
from tests.contract.control_plane_rig import Rig, refused
from yolopool import errors
from yolopool.v1 import model_pb2, watches_pb2, watches_pb2_grpc

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

FILE = os.urandom(2 * 1024 * 1024 + 5)
KEY, SECRET = "AKIAYOLOPOOL", "not-to-be-told"
FAILED, READY = model_pb2.VERSION_STATE_FAILED, model_pb2.VERSION_STATE_READY
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.matrix(sample=1, of="objects of S3"),
]


class Bucket:
    """A bucket named `models` of a local S3."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket="models", Key=key, Body=data)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        one = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        one.start()
        host, port = one.get_host_and_port()
        url = f"http://{host}:{port}"
        folder = tmp_path_factory.mktemp("aws")
        (folder / "config").write_text(
            f"[profile minio]\nendpoint_url = {url}\nregion = us-east-1\n"
        )
        (folder / "credentials").write_text(
            f"[minio]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        }.items():  # fmt: skip
            patch.setenv(name, value)
        import boto3  # type: ignore[import-untyped]

        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield Bucket(client)
        client.close()
        one.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> AsyncIterator[Rig]:
    folder = tmp_path_factory.mktemp("pool")
    async with Rig(folder, source_profiles=["minio"], source_hosts=["models"]) as one:
        yield one


async def arrives(rig: Rig, name: str, number: int = 1) -> Any:
    async with asyncio.timeout(20):
        while True:
            with_number = model_pb2.GetModelRequest(model=f"{name}@{number}")
            try:
                answer = await rig.models.GetModel(with_number, timeout=5)
            except Exception:  # a watch has not registered it yet
                await asyncio.sleep(0.05)
                continue
            version = answer.model.versions[0]
            if version.artifact or version.state == FAILED:
                return version
            await asyncio.sleep(0.05)


async def register(rig: Rig, name: str, uri: str, **more: Any) -> Any:
    request = model_pb2.RegisterModelRequest(name=name, uri=uri, **more)
    return await rig.models.RegisterModel(request, timeout=10)


@pytest.mark.parametrize("profile", ["", "minio"])
async def test_an_object_is_fetched(profile: str, rig: Rig, bucket: Bucket) -> None:
    bucket.put("line7/best.pt", FILE)
    name = f"object{profile}"
    await register(rig, name, "s3://models/line7/best.pt", profile=profile)
    version = await arrives(rig, name)
    assert version.artifact == hashlib.sha256(FILE).hexdigest(), version.message
    assert (version.uri, version.profile) == ("s3://models/line7/best.pt", profile)
    assert SECRET not in str(version)


async def test_what_is_not_there_is_not_found(rig: Rig, bucket: Bucket) -> None:
    await register(rig, "absent", "s3://models/none.pt")
    version = await arrives(rig, "absent")
    assert (version.state, version.reason) == (FAILED, "SOURCE_NOT_FOUND")
    assert SECRET not in version.message


async def test_other_buckets_and_profiles_are_refused(rig: Rig) -> None:
    for uri, profile in (("s3://other/a.pt", ""), ("s3://models/a.pt", "admin")):
        request = model_pb2.RegisterModelRequest(name="no", uri=uri, profile=profile)
        said = await refused(rig.models.RegisterModel(request, timeout=5))
        assert isinstance(said, errors.SourceRefused)


async def test_a_read_goes_on_from_an_offset_of_the_same_object_alone(bucket: Bucket) -> None:
    bucket.put("changing.pt", FILE)
    uri, stores = parse("s3://models/changing.pt"), ObjectStores()
    opened = await asyncio.to_thread(stores.open, uri, "")

    def rest(offset: int) -> bytes:
        begins, parts = opened.read(offset)
        assert begins == offset
        return b"".join(parts)

    assert await asyncio.to_thread(rest, 1000) == FILE[1000:]
    assert await asyncio.to_thread(rest, len(FILE)) == b""
    bucket.put("changing.pt", FILE[::-1])
    with pytest.raises(errors.SourceChanged):
        await asyncio.to_thread(rest, 1000)
    opened.close()
    assert (await asyncio.to_thread(stores.open, uri, "")).facts.stamp != opened.facts.stamp


async def test_a_store_that_is_away_is_told_without_its_words(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(errors.SourceUnavailable) as said:
        await asyncio.to_thread(ObjectStores().open, parse("s3://models/a.pt"), "")
    assert "127.0.0.1" not in said.value.message


async def test_a_profile_that_does_not_exist_is_denied(bucket: Bucket, tmp_path: Path) -> None:
    rules = SourceRules(SCHEMES, profiles=frozenset({"none"}))
    sources = Sources(rules, {}, tmp_path, 10**9)
    with pytest.raises(errors.SourceDenied):
        await asyncio.to_thread(sources.open, Source("s3://models/a.pt", "none"))


async def test_new_objects_under_a_watched_prefix_become_versions(rig: Rig, bucket: Bucket) -> None:
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        watches: Any = watches_pb2_grpc.WatchServiceStub(channel)
        bucket.put("ota/one 1.pt", b"one")
        bucket.put("ota/deeper/other.pt", b"other")
        bucket.put("ota/notes.txt", b"notes")
        watch = watches_pb2.Watch(
            name="ota", uri="s3://models/ota", model="ota", every_s=1, settle_s=0.2
        )
        await watches.SetWatch(watches_pb2.SetWatchRequest(watch=watch), timeout=5)
        first = await arrives(rig, "ota", 1)
        assert first.artifact == hashlib.sha256(b"one").hexdigest()
        bucket.put("ota/one 1.pt", b"two")
        second = await arrives(rig, "ota", 2)
        assert second.artifact == hashlib.sha256(b"two").hexdigest()
        assert second.uri == "s3://models/ota/one%201.pt"
        await watches.DeleteWatch(watches_pb2.DeleteWatchRequest(name="ota"), timeout=5)

"""A pool that takes only signed models: by every way in, for every kind of wrong signature."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.types.version import VersionKey, VersionState
from importer.settings import Settings, read_settings
from importer.supervisor import Supervisor
from tests.contract.control_plane_rig import Rig
from tests.contract.imports import ignore
from tests.signing import Signer
from tests.waiting import becomes
from yolopool.client.async_client import AsyncClient
from yolopool.errors import YolopoolError
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, importing_pb2, model_pb2

DATA = b"weights of a model" * 100
SHA = hashlib.sha256(DATA).hexdigest()
ANNE, MALLORY = Signer(b"anneanne"), Signer(b"mallorym")
WRONG = {
    "none": ("", "SIGNATURE_REQUIRED"),
    "of nobody who is trusted": (MALLORY.sign(DATA), "SIGNATURE_INVALID"),
    "of other bytes": (ANNE.sign(DATA + b"!"), "SIGNATURE_INVALID"),
    "no signature": ("nonsense", "SIGNATURE_INVALID"),
    "with another comment": (ANNE.sign(DATA).replace("for tests", "by Anne"), "SIGNATURE_INVALID"),
}


def strict(folder: Path) -> dict[str, Any]:
    return {
        "trusted_signers": (ANNE.public(folder / "signers" / "anne.pub").parent,),
        "require_signatures": True,
    }


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, **strict(tmp_path)) as one:
        yield one


async def reason_of(call: Any) -> str:
    """Of its refusal; empty: it was answered."""
    try:
        await call
    except grpc.RpcError as error:
        return error_from_rpc(error).reason
    return ""


async def detect(rig: Rig, model: str) -> Any:
    request = detection_pb2.DetectRequest(model=model, encoded=b"image")
    return await rig.detection.Detect(request, timeout=10)


# --- the ways in, each with the text of a signature ---------------------------------------------


async def by_grpc(rig: Rig, folder: Path, signature: str) -> str:
    return await reason_of(rig.register("a", DATA, signature=signature))


async def by_known_bytes(rig: Rig, folder: Path, signature: str) -> str:
    """The bytes are in the store, and one who knows their digest registers them."""
    await rig.upload(DATA)
    request = model_pb2.RegisterModelRequest(name="a", artifact=SHA, signature=signature)
    return await reason_of(rig.models.RegisterModel(request, timeout=10))


async def by_put(rig: Rig, folder: Path, signature: str) -> str:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as http:
        query = {"wait": "false", **({"signature": signature} if signature else {})}
        answer = await http.put("/v1/models/a", params=query, content=DATA)
    return "" if answer.status_code == 202 else str(answer.json()["reason"])


async def by_client(rig: Rig, folder: Path, signature: str) -> str:
    """As `yolopool models register` does, with the .minisig beside the file."""
    file = folder / "best.pt"
    file.write_bytes(DATA)
    if signature:
        file.with_name("best.pt.minisig").write_text(signature)
    async with AsyncClient(rig.addresses.grpc) as client:
        try:
            await client.register("a", file, wait=False)
        except YolopoolError as error:
            return error.reason
    return ""


WAYS: list[Callable[[Rig, Path, str], Awaitable[str]]] = [
    by_grpc,
    by_known_bytes,
    by_put,
    by_client,
]


@pytest.mark.parametrize("way", WAYS)
async def test_only_signed_models_come_in(way: Any, rig: Rig, tmp_path: Path) -> None:
    for what, (signature, reason) in WRONG.items():
        assert await way(rig, tmp_path, signature) == reason, what
    assert rig.plane.view.desired.versions == {}
    assert await way(rig, tmp_path, ANNE.sign(DATA, "release 3")) == ""
    (version,) = (await rig.models.GetModel(model_pb2.GetModelRequest(model="a"))).model.versions
    assert (version.signer, version.signed_comment) == (ANNE.name, "release 3")


async def test_a_file_that_is_fetched_needs_a_signature_too(tmp_path: Path) -> None:
    """What is wrong with it without the file is said at once, the rest when the file is there."""
    (tmp_path / "best.pt").write_bytes(DATA)
    uri = (tmp_path / "best.pt").as_uri()
    async with Rig(tmp_path, **strict(tmp_path), source_roots=[str(tmp_path)]) as rig:

        async def fetched(name: str, signature: str) -> Any:
            request = model_pb2.RegisterModelRequest(name=name, uri=uri, signature=signature)
            await rig.models.RegisterModel(request, timeout=10)
            key, view = VersionKey(name, 1), rig.plane.view
            await becomes(lambda: bool((one := view.desired.versions[key]).artifact or one.reason))
            return view.desired.versions[key]

        for what, (signature, reason) in WRONG.items():
            if what in ("none", "of nobody who is trusted", "no signature"):
                assert await reason_of(fetched("early", signature)) == reason
            else:
                assert (await fetched(what.replace(" ", "-"), signature)).reason == reason
        whole = await fetched("whole", ANNE.sign(DATA))
        assert (whole.artifact, whole.given.signer) == (SHA, ANNE.name)
        assert "early" not in {key.model for key in rig.plane.view.desired.versions}


async def test_bytes_that_were_imported_before_need_a_signature_too(rig: Rig) -> None:
    """Without it their import would be taken over, and nobody would look at the file."""
    await rig.register("a", DATA, signature=ANNE.sign(DATA))
    await rig.import_next()
    assert await reason_of(rig.register("b", DATA)) == "SIGNATURE_REQUIRED"
    assert await reason_of(rig.register("b", DATA, signature=MALLORY.sign(DATA))) == (
        "SIGNATURE_INVALID"
    )
    taken = await rig.register("b", DATA, signature=ANNE.sign(DATA, "again"))
    assert (taken.state, taken.signed_comment) == (model_pb2.VERSION_STATE_READY, "again")


async def test_a_repeat_of_a_call_is_checked_like_the_first(rig: Rig) -> None:
    await rig.register("a", DATA, signature=ANNE.sign(DATA), request_id="once")
    assert await reason_of(rig.register("a", DATA, request_id="once")) == "SIGNATURE_REQUIRED"


async def test_stored_bytes_that_were_changed_are_not_what_was_signed(
    rig: Rig, tmp_path: Path
) -> None:
    await rig.upload(DATA)
    (rig.store / "artifacts" / SHA).write_bytes(b"other bytes")
    for signed in (DATA, b"other bytes"):
        request = model_pb2.RegisterModelRequest(
            name="a", artifact=SHA, signature=ANNE.sign(signed)
        )
        reason = await reason_of(rig.models.RegisterModel(request, timeout=10))
        assert reason == "SIGNATURE_INVALID"


async def test_a_build_is_signed_as_its_version_is(rig: Rig) -> None:
    await rig.register("a", DATA, signature=ANNE.sign(DATA))
    await rig.import_next()
    request = model_pb2.BuildModelRequest(
        model="a", backend="openvino", precision="fp32", device_kind="cpu"
    )
    build = (await rig.models.BuildModel(request, timeout=10)).build
    assert build.signer == ANNE.name
    job = await rig.import_next()
    assert job.signature == ANNE.sign(DATA)


async def test_where_nobody_is_trusted_a_signature_is_passed_over(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        version = await rig.register("a", DATA, signature=MALLORY.sign(DATA))
        assert version.signer == version.signed_comment == ""
        # Nor is it kept: nobody has checked whose bytes these are.
        given = rig.plane.view.desired.versions[VersionKey("a", 1)].given
        assert given.signature == ""


# --- models that are in the registry ------------------------------------------------------------


async def test_however_a_version_came_into_the_registry_it_is_not_served_unsigned(
    tmp_path: Path,
) -> None:
    """As after a restore from a copy, or where signatures are required from now on: this control
    plane shows the unsigned version as FAILED, and what it would restore a store from stays whole.
    """
    async with Rig(tmp_path / "before") as before:
        await before.register("unsigned", DATA)
        await before.import_next()
        wanted = model_pb2.LoadModelRequest(model="unsigned")
        assert await reason_of(before.models.LoadModel(wanted, timeout=5)) == ""
    async with Rig(tmp_path / "now", before.registry, **strict(tmp_path)) as now:
        worker = await now.worker("w")
        key = VersionKey("unsigned", 1)
        await becomes(lambda: key in now.plane.view.desired.versions)
        shown = now.plane.view.desired.versions[key]
        assert (shown.state, shown.reason) == (VersionState.FAILED, "SIGNATURE_REQUIRED")
        assert now.plane.view.frozen_desired().versions[key].state is VersionState.READY
        assert await reason_of(detect(now, "unsigned")) == "MODEL_IMPORT_FAILED"
        load = model_pb2.LoadModelRequest(model="unsigned", wait=True)
        assert await reason_of(now.models.LoadModel(load, timeout=5)) == "MODEL_IMPORT_FAILED"
        assert worker.assigned == []  # though it is wanted, as the store says
        # Registered again with a signature, it is served, under a new number.
        await now.register("unsigned", DATA + b"2", signature=ANNE.sign(DATA + b"2"))
        await now.import_next()
        answer = await detect(now, "unsigned")
        assert answer.version.version == 2


async def test_an_unsigned_file_that_waits_for_an_importer_is_not_opened(tmp_path: Path) -> None:
    async with Rig(tmp_path / "before") as before:
        await before.register("unsigned", DATA)
        async with Rig(tmp_path / "now", before.registry, **strict(tmp_path)) as now:
            claim = importing_pb2.ClaimImportRequest(importer="i", wait_s=0.5)
            answer = await now.importing.ClaimImport(claim, timeout=10)
            assert not answer.HasField("job")
            key = VersionKey("unsigned", 1)
            stored = (await now.registry.desired()).versions[key]
            assert (stored.state, stored.reason) == (VersionState.FAILED, "SIGNATURE_REQUIRED")


async def test_models_of_a_signer_who_is_trusted_no_more_are_not_served(tmp_path: Path) -> None:
    async with Rig(tmp_path / "before", **strict(tmp_path)) as before:
        await before.register("a", DATA, signature=ANNE.sign(DATA))
        await before.import_next()
        bert = Signer(b"bertbert").public(tmp_path / "bert.pub")
        changes: dict[str, Any] = {"trusted_signers": (bert,), "require_signatures": True}
        async with Rig(tmp_path / "now", before.registry, **changes) as now:
            shown = now.plane.view.desired.versions[VersionKey("a", 1)]
            assert (shown.state, shown.reason) == (VersionState.FAILED, "SIGNATURE_REQUIRED")
            assert ANNE.name in shown.message


# --- the importer -------------------------------------------------------------------------------


def importer_settings(rig: Rig, folder: Path, *signers: Path) -> Settings:
    flags = [f"--control-planes={rig.addresses.grpc}", f"--scratch-dir={folder / 'scratch'}"]
    return read_settings([*flags, f"--trusted-signers={','.join(map(str, signers))}"])


@pytest.mark.parametrize("what", WRONG)
async def test_an_importer_with_signers_of_its_own_opens_nothing_else(
    what: str, tmp_path: Path
) -> None:
    """Whatever a control plane sends: this one checks nothing."""
    signature, reason = WRONG[what]
    async with Rig(tmp_path / "plane") as rig:
        await rig.register("a", DATA)
        key = VersionKey("a", 1)
        signers = (ANNE.public(tmp_path / "signers" / "anne.pub"),)
        importer = Supervisor(importer_settings(rig, tmp_path, *signers))
        claim = importing_pb2.ClaimImportRequest(importer="other", wait_s=5)
        job = (await rig.importing.ClaimImport(claim, timeout=10)).job
        job.signature = signature
        with pytest.raises(YolopoolError) as caught:
            await importer._work(job, ignore)
        assert caught.value.reason == reason
        await importer._planes.close()
        assert rig.plane.view.desired.versions[key].state is VersionState.IMPORTING


async def test_an_importer_reports_whose_signature_is_missing(tmp_path: Path) -> None:
    async with Rig(tmp_path / "plane") as rig:
        await rig.register("a", DATA)
        folder = ANNE.public(tmp_path / "signers" / "anne.pub").parent
        settings = importer_settings(rig, tmp_path, folder)
        importing = asyncio.create_task(Supervisor(settings).run())
        versions = rig.plane.view.desired.versions
        await becomes(lambda: versions[VersionKey("a", 1)].state is VersionState.FAILED)
        importing.cancel()
        await asyncio.gather(importing, return_exceptions=True)
        assert versions[VersionKey("a", 1)].reason == "SIGNATURE_REQUIRED"


def test_an_importer_without_a_pool_asks_for_the_signature_beside_the_file(tmp_path: Path) -> None:
    file, public = tmp_path / "best.pt", ANNE.public(tmp_path / "signers" / "anne.pub")
    file.write_bytes(DATA)
    reasons = []
    for signature in ("", MALLORY.sign(DATA), ANNE.sign(DATA)):
        if signature:
            file.with_name("best.pt.minisig").write_text(signature)
        flags = [str(file), f"--out={tmp_path / 'packs'}", f"--trusted-signers={public}"]
        command = [sys.executable, "-m", "importer", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        reasons.append(json.loads(done.stdout)["reason"])
    # The last one is read, and is no model.
    assert reasons == ["SIGNATURE_REQUIRED", "SIGNATURE_INVALID", "ARTIFACT_INVALID"]

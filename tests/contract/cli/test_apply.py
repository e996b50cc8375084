"""A fleet file applied to a real control plane: once, again, pruned, with faults, and restored."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.redis.redis_client import connect
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.registry import Registry
from tests.contract import redis_servers
from tests.contract.control_plane_rig import Rig
from yolopool.client.client import Client
from yolopool.client.fleet_file.application.outcome import Applied, FleetPlan
from yolopool.errors import ArtifactNotFound, FleetFileInvalid
from yolopool.v1 import importing_pb2

FLEET = """\
fleet: 1
prefix: plant/
models:
  - name: plant/bolts
    artifact: bolts.pt
    settings: {confidence: 0.3}
    labels: {line: 7}
    placement: {max_replicas: 2}
    batching: {cpu: {max_batch: 4, max_delay_ms: 0.1}}
    builds: [{backend: onnx, precision: fp32, device: cpu, serve: true}]
  - name: plant/nuts
    artifact: sub/nuts.pt
    residency: {mode: on-demand, idle_release_s: 300.5}
  - name: plant/weights
    artifact: bolts.pt
    class_names: [no, "7"]
    architecture_yaml: |
      nc: 2
    metadata: {args.yaml: "epochs: 9\\n"}
aliases:
  - {name: "plant/bolts:stable", targets: {newest: 1000}}
schedules:
  - name: plant-day
    cron: "0 6 * * *"
    load: [{model: plant/nuts, replicas: 1, placement: {pool: day}}]
    release: ["plant/bolts:stable"]
"""

# Every other section; the folder of the watch takes the place of %s.
MORE = """\
  - name: plant-dusk
    sun: dusk-15m
    place: {latitude: 52.52, longitude: 13.405}
    lead_s: 0.1
    load: [{model: "plant/any:size"}]
families:
  - name: plant/any:light
    members: [{model: "plant/any:size", begins: dawn}, {model: plant/nuts, begins: dusk}]
    place: {latitude: 52.52, longitude: 13.405}
  - name: plant/any:size
    members: [{model: plant/nuts}, {model: "plant/bolts:stable"}]
    within_s: 0.2
gates:
  - {model: plant/bolts, data: labelled, min_map50_95: 0.4}
store:
  - {pattern: plant/*, keep_versions: 5, store_bytes: 100000000}
watches:
  - {name: nuts, uri: "file://%s", model: plant/nuts, patterns: ["*.pt"], every_s: 3600}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "bolts.pt").write_bytes(b"bolts")
    (tmp_path / "sub" / "nuts.pt").write_bytes(b"nuts")
    (tmp_path / "labelled").mkdir()
    (tmp_path / "labelled" / "one.png").write_bytes(b"a picture")
    (tmp_path / "labelled" / "one.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


@pytest.fixture
def short() -> Iterator[Path]:
    """The path of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        yield Path(folder)


@asynccontextmanager
async def a_pool(
    folder: Path,
    fails: Callable[[Any], bool] = lambda job: False,
    registry: Registry | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """A control plane whose uploads are imported as they come, but for those that are to fail."""
    async with Rig(folder, registry, **changes) as rig:

        async def run() -> None:
            claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=5)
            while True:
                job = (await rig.importing.ClaimImport(claim, timeout=10)).job
                if not job.HasField("version"):
                    continue
                report = importing_pb2.ReportImportRequest(importer="i1", version=job.version)
                if fails(job):
                    report.failure.reason, report.failure.message = "ARTIFACT_UNSAFE", "no"
                else:
                    report.pack.CopyFrom(rig.pack(job))
                await rig.importing.ReportImport(report, timeout=5)

        imports = asyncio.create_task(run())
        yield rig
        imports.cancel()
        with suppress(asyncio.CancelledError):
            await imports


async def applied(
    rig: Rig, file: Path, *, prune: bool = False, wait: bool = True
) -> tuple[FleetPlan, Applied]:
    def work() -> tuple[FleetPlan, Applied]:
        with Client(rig.addresses.grpc) as client:
            planned = client.plan_fleet(file, prune=prune)
            return planned, client.apply_fleet(planned, wait=wait, timeout_s=20)

    return await asyncio.to_thread(work)


async def exported(rig: Rig, prefix: str = "") -> str:
    def work() -> str:
        with Client(rig.addresses.grpc) as client:
            return client.export_fleet(prefix).text

    return await asyncio.to_thread(work)


async def versions(rig: Rig) -> list[str]:
    with Client(rig.addresses.grpc) as client:
        known = await asyncio.to_thread(client.models)
    return [version.name for model in known for version in model.versions]


async def imported(rig: Rig, ref: str) -> None:
    def wait() -> None:
        with Client(rig.addresses.grpc) as client:
            while client.model(ref).versions[0].state != "READY":
                time.sleep(0.02)

    await asyncio.to_thread(wait)


def rewritten(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def in_a_process(rig: Rig, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Beside a control plane that logs to this process's output."""
    main = "from yolopool.cli.main import main; main()"
    command = [sys.executable, "-c", main, *map(str, words), "--address", rig.addresses.grpc]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_a_file_is_applied_once_and_restored_from_its_export(
    tmp_path: Path, file: Path, short: Path
) -> None:
    more = "".join(
        f"  - {{name: plant/m{n}, artifact: bolts.pt, settings: {{confidence: 0.{n}}}}}\n"
        for n in range(1, 4)
    )
    whole = FLEET.replace("aliases:\n", f"{more}aliases:\n") + MORE % (tmp_path / "incoming")
    rewritten(file, whole)
    roots = (str(tmp_path),)
    url = f"unix://{short}/redis.sock"
    with redis_servers.server(redis_servers.any_kind(), short):
        async with a_pool(
            tmp_path / "pool", registry=RedisRegistry(url), source_roots=roots
        ) as rig:
            planned, done = await applied(rig, file)
            assert (done.failures, done.later) == ([], [])
            assert [one.ref for one in planned.plan.versions] == [
                "plant/bolts", "plant/nuts", "plant/weights", "plant/m1", "plant/m2", "plant/m3",
            ]  # fmt: skip
            with Client(rig.addresses.grpc) as client:
                (bolts,) = (await asyncio.to_thread(client.model, "plant/bolts")).versions
                stable = await asyncio.to_thread(client.alias, "plant/bolts:stable")
                family = await asyncio.to_thread(client.family, "plant/any:light")
                (rule, gated) = await asyncio.to_thread(client.rules)
                (watch,) = await asyncio.to_thread(client.watches)
                schedules = await asyncio.to_thread(client.schedules)
            assert (bolts.state, bolts.labels) == ("READY", {"line": "7"})
            assert (bolts.batching["cpu"].max_batch, bolts.source_name) == (4, "bolts.pt")
            assert (bolts.served["cpu"].variant, stable.targets) == ("onnx/fp32", {1: 1000})

            assert [one.model for one in family.members] == ["plant/any:size", "plant/nuts"]
            assert family.place == (52.52, 13.405)
            assert gated.gate is not None
            assert (gated.pattern, gated.gate.min_map50_95) == ("plant/bolts", 0.4)
            assert (rule.pattern, rule.keep_versions) == ("plant/*", 5)
            assert (watch.model, watch.every_s) == ("plant/nuts", 3600.0)
            assert [one.sun for one in schedules] == ["", "dusk-15m"]

            again, nothing = await applied(rig, file, prune=True)
            assert (again.plan.is_empty, nothing.done, again.plan.unchanged) == (True, [], 6)

            before = await exported(rig)
            written = rewritten(tmp_path / "exported.yaml", before)
            unchanged, _ = await applied(rig, written, prune=True)
            assert unchanged.plan.is_empty

        # An emptied Redis, and a fresh pool that has the store of the one that is gone.
        empty: Any = connect(url, None, 1.0)
        await empty.flushall()
        await empty.aclose()
        shutil.copytree(tmp_path / "pool" / "store", tmp_path / "fresh" / "store")
        async with a_pool(
            tmp_path / "fresh", registry=RedisRegistry(url), source_roots=roots
        ) as fresh:
            assert await versions(fresh) == []
            _, done = await applied(fresh, written)
            assert done.failures == []
            assert await exported(fresh) == before
            restored, _ = await applied(fresh, written, prune=True)
            assert restored.plan.is_empty

            # A version that its gate did not let through yet takes over nothing.
            rewritten(file, whole)
            rewritten(tmp_path / "bolts.pt", "better bolts")
            await applied(fresh, file, wait=False)
            await imported(fresh, "plant/bolts@2")
            _, done = await applied(fresh, file, wait=False)
            assert done.failures == []
            (waits,) = [line for line in done.later if "alias" in line]
            assert waits.startswith("alias plant/bolts:stable: plant/bolts@2 ")
            # Nor does one whose gate can't be set.
            gone = "sha256:" + "9" * 64
            rewritten(
                file, f"{FLEET}gates: [{{model: plant/bolts, data: '{gone}', min_map50: 0.5}}]\n"
            )
            _, done = await applied(fresh, file, wait=False)
            assert [type(one.error) for one in done.failures] == [ArtifactNotFound]
            assert done.failures[0].line == len(FLEET.splitlines()) + 1
            assert "alias plant/bolts:stable waits for the gate of plant/bolts" in done.later
            # A gate that goes holds none back.
            sections = ("families", "gates", "store", "watches", "schedules")
            nothing_of = "".join(f"{section}: []\n" for section in sections)
            alias = "aliases: [{name: 'plant/bolts:stable', targets: {newest: 1000}}]\n"
            rewritten(file, f"fleet: 1\n{alias}{nothing_of}")
            _, done = await applied(fresh, file, prune=True, wait=False)
            assert (done.failures, done.later) == ([], [])
            bare = await exported(fresh)
            assert [section for section in sections if f"\n{section}: []\n" not in bare] == []
            assert "name: plant/bolts:stable\n  targets:\n    '2': 1000\n" in bare


async def test_a_file_that_the_pool_fetches_is_told_by_its_uri(tmp_path: Path, file: Path) -> None:
    uri = (tmp_path / "bolts.pt").as_uri()
    rewritten(file, f"fleet: 1\nmodels:\n  - {{name: a, artifact: '{uri}'}}\n")
    async with a_pool(tmp_path / "pool", source_roots=(str(tmp_path),)) as rig:
        _, done = await applied(rig, file)
        assert done.failures == []
        assert (await applied(rig, file))[0].plan.is_empty
        written = rewritten(tmp_path / "exported.yaml", await exported(rig))
        assert f"artifact: {uri}" in await asyncio.to_thread(written.read_text)
        planned, _ = await applied(rig, written, prune=True)
        assert planned.plan.is_empty


async def test_a_new_file_is_a_new_version_and_what_is_not_named_is_pruned(
    tmp_path: Path, file: Path
) -> None:
    async with a_pool(tmp_path / "pool") as rig:
        await applied(rig, file)
        rewritten(tmp_path / "bolts.pt", "better bolts")
        with Client(rig.addresses.grpc) as client:
            await asyncio.to_thread(client.load, "plant/nuts", pin=True, wait=False)
        less = FLEET[: FLEET.index("  - name: plant/nuts")] + FLEET[FLEET.index("aliases:") :]
        rewritten(file, less[: less.index("schedules:")] + "schedules: []\n")
        told = await asyncio.to_thread(
            in_a_process, rig, "apply", "-f", file, "--dry-run", "--prune"
        )
        assert told.returncode == 0, told.stderr
        lines = told.stdout.splitlines()
        assert lines[0].startswith("+ plant/bolts  bolts.pt (sha256 ")
        assert [line for line in lines if line[0] in "-~"] == [
            "~ alias plant/bolts:stable  @1 -> @newest", "- schedule plant-day", "- plant/bolts@1",
            "- plant/nuts@1", "- plant/weights@1",
        ]  # fmt: skip
        assert lines[-1] == "1 to add, 1 to change, 4 to delete, 0 unchanged"
        assert len(await versions(rig)) == 3  # a dry run changes nothing

        _, done = await applied(rig, file)
        assert done.failures == []
        assert await versions(rig) == [
            "plant/bolts@2", "plant/bolts@1", "plant/nuts@1", "plant/weights@1",
        ]  # fmt: skip
        planned, done = await applied(rig, file, prune=True)
        assert planned.plan.left == ()
        assert done.failures == []
        left = await versions(rig)
        # It may stay while the alias can be rolled back to it.
        assert ("plant/bolts@1" in left) is bool(done.later)
        assert [name for name in left if name != "plant/bolts@1"] == ["plant/bolts@2"]


async def test_what_fails_ends_its_own_version_alone(tmp_path: Path, file: Path) -> None:
    bad = "plant/nuts"
    async with a_pool(tmp_path / "pool", lambda job: job.version.model == bad) as rig:
        done = await asyncio.to_thread(
            in_a_process, rig, "apply", "-f", file, "--wait", "--prune", "--json"
        )
        answer = json.loads(done.stdout)
        assert (done.returncode, [one["line"] for one in answer["errors"]]) == (4, [11])
        said = f"{file}:11: plant/nuts@1: import: MODEL_IMPORT_FAILED: plant/nuts@1 FAILED: "
        assert (
            f"error {said}ARTIFACT_UNSAFE: no: delete it to try the same file again" in done.stderr
        )
        with Client(rig.addresses.grpc) as client:
            known = await asyncio.to_thread(client.models)
        assert [model.versions[0].state for model in known] == ["READY", "FAILED", "READY"]
        # It stays failed, and nothing new is made of it.
        _, again = await applied(rig, file)
        assert [one.line for one in again.failures] == [11]
        assert len(await versions(rig)) == 3


async def test_without_waiting_the_rest_is_done_by_the_next(tmp_path: Path, file: Path) -> None:
    async with Rig(tmp_path / "pool") as rig:  # nobody imports
        _, first = await applied(rig, file, wait=False)
        assert first.failures == []
        assert "plant/bolts@1 waits for its import" in first.later
        assert "alias plant/bolts:stable waits for the import of plant/bolts@1" in first.later
        assert "schedule plant-day waits for alias plant/bolts:stable" in first.later
        _, again = await applied(rig, file, wait=False)
        assert [one for one in again.done if "register" in one] == []
        for _ in range(3):
            await rig.import_next()
        _, second = await applied(rig, file, wait=False)
        assert second.later == ["plant/bolts@1 waits for its build"]
        assert [one.partition(" ")[0] for one in second.done] == [
            "plant/bolts@1:",
            "alias",
            "schedule",
        ]
        await rig.import_next()
        _, third = await applied(rig, file, wait=False)
        assert (third.done, third.later) == (
            ["plant/bolts@1: served on cpu: the workers' own -> onnx/fp32"], [],
        )  # fmt: skip
        assert (await applied(rig, file, wait=False))[0].plan.is_empty


async def test_a_fault_is_told_before_anything_is_done(tmp_path: Path, file: Path) -> None:
    async with a_pool(tmp_path / "pool") as rig:
        shutil.rmtree(tmp_path / "sub")
        rewritten(file, FLEET.replace("artifact: bolts.pt\n    class", "sha256: abc\n    class"))
        with pytest.raises(FleetFileInvalid):
            await applied(rig, file)
        rewritten(file, FLEET)
        with pytest.raises(
            FleetFileInvalid, match=r":12: models\[1\].artifact: .*nuts.pt: No such"
        ):
            await applied(rig, file)
        assert await versions(rig) == []
        # Of a file that the pool has, the digest will do; of another it will not.
        digest = "9" * 64
        rewritten(
            file, f"fleet: 1\nmodels:\n  - {{name: a, artifact: gone.pt, sha256: {digest}}}\n"
        )
        _, done = await applied(rig, file)
        assert [type(one.error) for one in done.failures] == [ArtifactNotFound]

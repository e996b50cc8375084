"""The importer on good, damaged and hostile files, alone and against a control plane's service."""

import asyncio
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from importer import child, store, supervisor
from importer.processes import fresh_child
from importer.processes.forked_child import Zygote
from importer.processes.prepared import Prepared
from importer.processes.running import Start
from importer.refusal import ImportRefused
from importer.settings import read_settings
from importer.supervisor import Supervisor
from tests.contract.importer.test_prepared import program
from tests.contract.imports import forked, import_in_child, imports_under_way, parent, refusal_of
from tests.full_disk import full_disk
from tests.models import Zoo, build_woken, import_checkpoint, save
from tests.waiting import becomes
from worker.packs.pack_store import PackStore
from yolopool.errors import DiskFull, ImportNotYours
from yolopool.server import grpc_server
from yolopool.v1 import importing_pb2 as pb
from yolopool.v1 import types_pb2
from yolopool.v1.importing_pb2_grpc import (
    ImportServiceServicer,
    add_ImportServiceServicer_to_server,
)
from yolopool.v1.types_pb2 import VersionSettings
from yolopool.v1.worker_pb2 import PackLocation

# --- without a pool -------------------------------------------------------------------------------


def test_a_good_file(zoo: Zoo, tmp_path: Path) -> None:
    report = import_checkpoint(zoo.checkpoint("shapes"), tmp_path / "packs")
    # The same file gives the same pack: the zoo's was made by another run.
    assert report["digest"] == zoo.pack("shapes").digest
    assert report["class_names"] == ["circle", "square", "triangle"]
    assert report["architecture"] == "yolo11n-detect"
    assert report["task"] == "detect"
    assert report["settings"] == {
        "image_size": 320,
        "confidence": 0.25,
        "iou": 0.7,
        "max_detections": 300,
        "shape_policy": "SHAPE_POLICY_RECT",
        "head_mode": "HEAD_MODE_ONE_TO_MANY",
    }
    assert Path(report["pack"]).name == report["digest"]
    pack = PackStore(tmp_path).fetch(
        PackLocation(uri=Path(report["pack"]).as_uri(), digest=report["digest"])
    )
    # 24.0 MB an image and megapixel in fp16: twice that.
    assert pack.manifest.activation_bytes_per_megapixel == pytest.approx(48e6, rel=0.01)
    assert pack.manifest.parameters > 2_500_000
    assert pack.manifest.stride == 32
    assert any(word.startswith("ultralytics 8") for word in pack.manifest.made_with)
    files = list(Path(report["pack"]).iterdir())
    assert int(report["pack_bytes"]) == sum(file.stat().st_size for file in files)
    assert int(report["artifact_bytes"]) == zoo.checkpoint("shapes").stat().st_size
    # yolo11n at 640: 6.5 GFLOPs by the library's own count; the demo model is asked at 320.
    assert report["gflops"] * 4 == pytest.approx(6.5, rel=0.07)


def test_a_refusal_is_printed(tmp_path: Path) -> None:
    report = import_checkpoint(tmp_path / "nowhere.pt", tmp_path / "packs")
    assert report["reason"] == "ARTIFACT_NOT_FOUND"
    assert not (tmp_path / "packs").exists()


def test_the_supervisor_imports_no_torch() -> None:
    code = "import sys, importer.__main__; print({'torch', 'ultralytics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- what is said of it ---------------------------------------------------------------------------


async def test_settings_win_over_defaults(zoo: Zoo, tmp_path: Path) -> None:
    settings = VersionSettings(
        image_size=500,
        confidence=0.0,
        max_detections=7,
        shape_policy=types_pb2.SHAPE_POLICY_SQUARE,
    )
    steps: list[str] = []

    async def note(progress: pb.ImportProgress) -> None:
        steps.append(progress.step)

    pack = await import_in_child(
        zoo.checkpoint("shapes"), tmp_path / "work", settings=settings, on_progress=note
    )
    assert pack.settings.image_size == 512  # whole strides
    assert pack.settings.confidence == 0
    assert pack.settings.iou == pytest.approx(0.7)
    assert pack.settings.max_detections == 7
    assert pack.settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE
    assert steps == ["verify", "load", "rebuild", "measure", "encode", "write"]


async def in_a_weaker_sandbox(path: Path, folder: Path) -> tuple[pb.ImportedPack, ImportRefused]:
    """The pack of a host that lacks something, and the refusal of an importer that demands it."""
    async with parent() as zygote:
        pack = await import_in_child(path, folder / "work", start=zygote.start)
        refusal = await refusal_of(
            path, folder / "strict", require_sandbox=True, start=zygote.start
        )
    return pack, refusal


async def test_a_weaker_sandbox_is_in_the_warnings(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As installed packages are: of other folders on the path the child may read nothing.
    (tmp_path / "broken" / "pyseccomp-0.dist-info").mkdir(parents=True)
    (tmp_path / "broken" / "pyseccomp.py").write_text("raise ImportError('not on this host')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "broken"), *sys.path])
    pack, refusal = await in_a_weaker_sandbox(zoo.checkpoint("shapes"), tmp_path)
    assert any("system call filter" in warning for warning in pack.warnings)
    assert refusal.reason == "SANDBOX_WEAKER"
    assert "system call filter" in refusal.message


async def test_a_host_without_name_spaces_is_a_weaker_sandbox(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is started under a filter that refuses `unshare`, as container runtimes do."""
    python = tmp_path / "python"
    python.write_text(f"""#!{sys.executable}
import errno, os, pyseccomp, sys
calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
calls.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
calls.load()
os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
""")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    pack, refusal = await in_a_weaker_sandbox(zoo.checkpoint("shapes"), tmp_path)
    assert any("network name space (EPERM)" in warning for warning in pack.warnings)
    assert refusal.reason == "SANDBOX_WEAKER"
    assert "network name space" in refusal.message


def test_the_policy_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings([]).require_sandbox
    assert read_settings(["--require-sandbox"]).require_sandbox
    monkeypatch.setenv("YOLOPOOL_IMPORTER_REQUIRE_SANDBOX", "true")
    assert read_settings([]).require_sandbox


# --- damaged and hostile files --------------------------------------------------------------------


def truncated(path: Path, zoo: Zoo) -> None:
    data = zoo.checkpoint("shapes").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped_within(path: Path, zoo: Zoo) -> None:
    with zipfile.ZipFile(zoo.checkpoint("shapes")) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            data = source.read(member)
            target.writestr(member, data[::-1] if member.filename.endswith("data.pkl") else data)


def zip_of_text(path: Path, zoo: Zoo) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")


def bomb(path: Path, zoo: Zoo) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 50_000_000)


def weights_only(path: Path, zoo: Zoo) -> None:
    torch.save({"model": {"weight": torch.zeros(3)}}, path)


def of_another_task(path: Path, zoo: Zoo) -> None:
    from ultralytics.nn.tasks import SemanticSegmentationModel

    save(SemanticSegmentationModel("yolo26n-sem.yaml", verbose=False), path)


def of_four_channels(path: Path, zoo: Zoo) -> None:
    from ultralytics.nn.tasks import DetectionModel

    save(DetectionModel("yolov8n.yaml", ch=4, verbose=False), path)


def of_wrong_names(path: Path, zoo: Zoo) -> None:
    model = build_woken("yolov8n.yaml", 1)
    model.names = {0: "only"}
    save(model, path)


BAD: dict[str, tuple[Callable[[Path, Zoo], Any], str]] = {
    "empty": (lambda path, zoo: path.write_bytes(b""), "ARTIFACT_INVALID"),
    "text": (lambda path, zoo: path.write_text("hello"), "ARTIFACT_INVALID"),
    "bare pickle": (lambda path, zoo: path.write_bytes(pickle.dumps({})), "ARTIFACT_INVALID"),
    "truncated": (truncated, "ARTIFACT_INVALID"),
    "flipped": (flipped_within, "ARTIFACT_INVALID"),
    "zip of text": (zip_of_text, "ARTIFACT_INVALID"),
    "bomb": (bomb, "ARTIFACT_INVALID"),
    "a list": (lambda path, zoo: torch.save([1, 2], path), "ARTIFACT_INVALID"),
    "wrong names": (of_wrong_names, "ARTIFACT_INVALID"),
    "weights only": (weights_only, "ARTIFACT_UNSUPPORTED"),
    "another task": (of_another_task, "ARTIFACT_UNSUPPORTED"),
    "four channels": (of_four_channels, "ARTIFACT_UNSUPPORTED"),
}


@pytest.mark.matrix(sample=4)
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_file_is_refused(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    make, reason = BAD[kind]
    path = tmp_path / "bad.pt"
    make(path, zoo)
    refusal = await refusal_of(path, tmp_path / "work")
    assert refusal.reason == reason
    assert "weights_only" not in refusal.message


async def test_another_file_than_registered_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    refusal = await refusal_of(zoo.checkpoint("shapes"), tmp_path / "work", sha256="0" * 64)
    assert refusal.reason == "DIGEST_MISMATCH"


@pytest.mark.parametrize("start", [forked, fresh_child.start])
async def test_time_is_limited_and_no_process_is_left(
    start: Start, zoo: Zoo, tmp_path: Path
) -> None:
    of, work = zoo.checkpoint("shapes"), tmp_path / "work"
    refusal = await refusal_of(of, work, time_s=0.05, start=start)
    assert refusal.reason == "IMPORT_TIMEOUT"
    assert not imports_under_way()


async def test_memory_is_limited(tmp_path: Path) -> None:
    """A file that is small and asks for much: an architecture of 270 MB."""
    path = tmp_path / "small.pt"
    torch.save({"model.0.conv.weight": torch.zeros(1)}, path)
    of = child.Architecture("yolov8x.yaml", ("a",))
    refusal = await refusal_of(path, tmp_path / "work", memory_bytes=128 * 1024**2, weights_of=of)
    assert refusal.reason == "IMPORT_OUT_OF_MEMORY"
    assert "--memory-limit-bytes" in refusal.message


def test_the_sandbox_refuses_network_and_exec(tmp_path: Path) -> None:
    """Tried for real in a child that goes through the same two steps."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    code = f"""
import json, os, socket, subprocess
from importer import sandbox
from pathlib import Path
own = Path({str(tmp_path)!r})
warnings = sandbox.before_imports([], own)
warnings += sandbox.after_imports(2**30, 1000, 60)
found = {{}}
def attempt(name, action):
    try:
        action()
        found[name] = "done"
    except Exception as error:
        found[name] = type(error).__name__
attempt("socket", lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("spawn", lambda: subprocess.run(["true"], check=True))
attempt("kill", lambda: os.kill({os.getpid()}, 0))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("thread kill", lambda: libc.tgkill({os.getpid()}, {os.getpid()}, 0) and 1 / 0)
attempt("memory", lambda: bytearray(2**31))
attempt("file", lambda: open({str(tmp_path / "big")!r}, "wb", buffering=0).write(b"x" * 100) and
    [open({str(tmp_path / "big")!r}, "ab", buffering=0).write(b"x" * 600) for _ in range(3)])
print(json.dumps([warnings, os.nice(0), found]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    server.close()
    warnings, niceness, found = json.loads(done.stdout)
    assert niceness == 19
    if not warnings:
        assert "done" not in found.values(), found
    assert found["memory"] == "MemoryError"


# --- publishing -----------------------------------------------------------------------------------


def imported(zoo: Zoo, folder: Path) -> PackLocation:
    """A pack as a child leaves it in its folder."""
    pack = zoo.pack("shapes")
    shutil.copytree(pack.uri.removeprefix("file://"), folder)
    return pack


def test_a_pack_is_published_whole_and_once(zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    packs = tmp_path / "store" / "packs"
    store.verify_pack(tmp_path / "work", pack.digest)
    for _ in range(2):
        store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    assert [path.name for path in packs.iterdir()] == [pack.digest]
    names = {path.name for path in (packs / pack.digest).iterdir()}
    assert names == {"manifest.json", "skeleton.json", "weights.bin"}
    store.publish(tmp_path / "work", "memory://published/packs", pack.digest)
    place = PackLocation(uri=f"memory://published/packs/{pack.digest}", digest=pack.digest)
    PackStore(tmp_path / "data").fetch(place).close()


def test_a_disk_without_room_is_said(zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    packs = tmp_path / "packs"
    with full_disk(1000), pytest.raises(DiskFull, match=str(packs)):
        store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    assert list(packs.iterdir()) == []
    store.publish(tmp_path / "work", "memory://full/packs", pack.digest)
    place = PackLocation(uri=f"memory://full/packs/{pack.digest}", digest=pack.digest)
    cache = PackStore(tmp_path / "data")
    with full_disk(1000), pytest.raises(DiskFull, match=str(tmp_path / "data" / "packs")):
        cache.fetch(place)
    cache.fetch(place).close()
    assert [path.name for path in (tmp_path / "data" / "packs").iterdir()] == [pack.digest]


def leave_behind(prefix: Path) -> None:
    """Folders as a crash leaves them: an old one, one whose file is written to, and a new one."""
    for name, folder_age_s, file_age_s in (
        ("old", 7200, 7200),
        ("written to", 7200, 0),
        ("new", 60, 60),
    ):
        left = Path(f"{prefix}{name}")
        left.mkdir(parents=True)
        (left / "weights.bin").write_bytes(b"half")
        for path, age_s in ((left / "weights.bin", file_age_s), (left, folder_age_s)):
            then = time.time() - age_s
            os.utime(path, (then, then))


def test_a_damaged_pack_gives_way_to_the_same_one(zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    packs = tmp_path / "packs"
    store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    os.truncate(packs / pack.digest / "weights.bin", 1000)
    store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    store.verify_pack(packs / pack.digest, pack.digest)


def test_a_pack_that_is_there_already_is_used_again_from_now_on(zoo: Zoo, tmp_path: Path) -> None:
    """Else the control planes might remove it before the import is reported."""
    pack = imported(zoo, tmp_path / "work")
    packs, before = tmp_path / "packs", time.time() - 1.0
    store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    os.utime(packs / pack.digest, (0.0, 0.0))
    store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    assert (packs / pack.digest).stat().st_mtime > before


def test_what_crashes_left_is_swept_when_nothing_can_be_at_it(zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    packs, scratch = tmp_path / "packs", tmp_path / "scratch"
    for folder in (packs / ".incoming-", scratch / "yolopool-import-", scratch / "another-"):
        leave_behind(folder)
    store.publish(tmp_path / "work", packs.as_uri(), pack.digest)
    assert {p.name for p in packs.iterdir()} == {
        ".incoming-new", ".incoming-written to", pack.digest,
    }  # fmt: skip
    store.sweep_scratch(scratch, time_limit_s=7200.0)
    assert len(list(scratch.iterdir())) == 6
    store.sweep_scratch(scratch, time_limit_s=60.0)
    assert {p.name for p in scratch.glob("yolopool-*")} == {
        "yolopool-import-new", "yolopool-import-written to",
    }  # fmt: skip
    assert len(list(scratch.glob("another-*"))) == 3


async def test_what_becomes_old_while_an_importer_runs_is_swept_too(tmp_path: Path) -> None:
    """It starts at once after one that was killed, when that one's folder is young."""
    flags = ["--control-planes=127.0.0.1:1", f"--scratch-dir={tmp_path}"]
    left = tmp_path / "yolopool-import-left"
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(Supervisor(read_settings(flags)).run())
        await becomes(lambda: [log for log in logs if log["event"] == "no control plane answers"])
        left.mkdir()
        os.utime(left, (1, 1))
        await becomes(lambda: not left.exists())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", store.FILES)
def test_what_is_no_plain_file_is_not_published(name: str, zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    place = tmp_path / "work" / name
    place.rename(tmp_path / name)
    place.symlink_to(tmp_path / name)
    with pytest.raises(ImportRefused, match="not plain files"):
        store.verify_pack(tmp_path / "work", pack.digest)
    place.unlink()
    os.mkfifo(place)  # to read it would take for ever
    with pytest.raises(ImportRefused, match="not plain files"):
        store.verify_pack(tmp_path / "work", pack.digest)


def test_a_pack_that_lies_is_not_published(zoo: Zoo, tmp_path: Path) -> None:
    pack = imported(zoo, tmp_path / "work")
    with (tmp_path / "work" / "weights.bin").open("r+b") as file:
        file.write(b"other")
    with pytest.raises(ImportRefused, match="does not match itself"):
        store.verify_pack(tmp_path / "work", pack.digest)


# --- against a control plane's service ------------------------------------------------------------


class Jobs(ImportServiceServicer):
    """The import service with a queue in memory; what importers say is kept."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[pb.ImportJob] = asyncio.Queue()
        self.reports: list[pb.ReportImportRequest] = []
        self.reported, self.ended = asyncio.Event(), asyncio.Event()
        self.lost = False

    async def ClaimImport(self, request: pb.ClaimImportRequest, context: Any) -> Any:
        try:
            async with asyncio.timeout(request.wait_s):
                return pb.ClaimImportResponse(job=await self.waiting.get())
        except TimeoutError:
            return pb.ClaimImportResponse()

    async def ReportImport(self, request: pb.ReportImportRequest, context: Any) -> Any:
        self.reports.append(request)
        self.reported.set()
        if self.lost:
            raise ImportNotYours("the lease ran out")
        if request.WhichOneof("report") != "progress":
            self.ended.set()
        return pb.ReportImportResponse()


@pytest.fixture
async def jobs() -> AsyncIterator[tuple[Jobs, str]]:
    jobs, server = Jobs(), grpc_server.GrpcServer(["yolopool.v1.ImportService"])
    add_ImportServiceServicer_to_server(jobs, server.server)
    port = await server.start("127.0.0.1", 0)
    yield jobs, f"127.0.0.1:{port}"
    await server.stop(0)


def job(path: Path, packs: Path, lease_s: float = 3.0) -> pb.ImportJob:
    return pb.ImportJob(
        version=types_pb2.VersionKey(model="team/shapes", version=3),
        settings=VersionSettings(),
        artifact_uri=path.as_uri(),
        artifact=hashlib.sha256(path.read_bytes()).hexdigest(),
        pack_store_uri=packs.as_uri(),
        lease_s=lease_s,
    )


async def serve(address: str, tmp_path: Path, *flags: str) -> "asyncio.Task[None]":
    scratch = f"--scratch-dir={tmp_path / 's'}"
    settings = read_settings([f"--control-planes={address}", scratch, *flags])
    return asyncio.create_task(Supervisor(settings).run())


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_job_becomes_a_pack_in_the_store(
    jobs: tuple[Jobs, str], zoo: Zoo, tmp_path: Path
) -> None:
    service, address = jobs
    # The first control plane is away: the second one is asked.
    task = await serve(f"127.0.0.1:1,{address}", tmp_path)
    await service.waiting.put(job(zoo.checkpoint("shapes"), tmp_path / "packs", lease_s=0.6))
    async with asyncio.timeout(60):
        await service.ended.wait()
    await stop(task)
    last = service.reports[-1]
    assert last.version.model == "team/shapes"
    assert last.pack.class_names == ["circle", "square", "triangle"]
    assert (tmp_path / "packs" / last.pack.digest / "manifest.json").is_file()
    steps = [report.progress.step for report in service.reports[:-1]]
    assert {"load", "rebuild"} & set(steps)
    assert len(steps) >= 4  # the lease is kept between the steps too
    assert not list((tmp_path / "s").iterdir())


async def test_a_failure_is_reported_and_the_next_job_taken(
    jobs: tuple[Jobs, str], zoo: Zoo, tmp_path: Path
) -> None:
    service, address = jobs
    task = await serve(address, tmp_path)
    (tmp_path / "empty.pt").write_bytes(b"")
    await service.waiting.put(job(tmp_path / "empty.pt", tmp_path / "packs"))
    async with asyncio.timeout(180):
        await service.ended.wait()
        assert service.reports[-1].failure.reason == "ARTIFACT_INVALID"
        service.ended.clear()
        await service.waiting.put(job(zoo.checkpoint("shapes"), tmp_path / "packs"))
        await service.ended.wait()
    await stop(task)
    assert service.reports[-1].pack.digest


async def test_no_more_imports_at_once_than_asked_for(
    jobs: tuple[Jobs, str], zoo: Zoo, tmp_path: Path
) -> None:
    """Three of four, and all end; one that comes again while it is under way begins once."""
    service, address = jobs
    for number in (1, 1, 2, 3, 4):
        one = job(zoo.checkpoint("shapes"), tmp_path / "packs")
        one.version.version = number
        await service.waiting.put(one)
    under_way, ended = set[int](), list[int]()
    most = seen = 0
    task = await serve(address, tmp_path, "--parallel=3")
    async with asyncio.timeout(60):
        while len(ended) < 4:
            await service.reported.wait()
            service.reported.clear()
            for report in service.reports[seen:]:
                number = report.version.version
                if report.WhichOneof("report") == "progress":
                    under_way |= {number} - set(ended)
                else:
                    under_way.discard(number)
                    ended.append(number)
                most = max(most, len(under_way))
            seen = len(service.reports)
    await stop(task)
    assert most == 3
    assert sorted(ended) == [1, 2, 3, 4]
    assert all(report.pack.digest for report in service.reports if report.HasField("pack"))


async def test_what_a_child_left_is_nothing_to_the_next_attempt(
    jobs: tuple[Jobs, str], zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken child that outwits its parent's life: the import begins again. Modules that it wrote
    would be imported before the sandbox is there, and a file that it linked would be readable.
    """
    service, address = jobs
    mark, other = tmp_path / "imported", zoo.checkpoint("shapes-26")
    leave = f"""
    import json
    os.chdir(json.loads(sys.stdin.read())["folder"])
    os.unlink("artifact.pt"), os.symlink({str(other)!r}, "artifact.pt")
    for name in ("json.py", "ctypes.py", "resource.py"):
        open(name, "w").write("open({str(mark)!r}, 'w')")
    os.kill(os.getppid(), signal.SIGKILL)
"""
    begin = partial(Zygote, program=program(leave))
    monkeypatch.setattr(supervisor, "Prepared", partial(Prepared, begin=begin))
    task = await serve(address, tmp_path)
    await service.waiting.put(job(zoo.checkpoint("shapes"), tmp_path / "packs"))
    async with asyncio.timeout(60):
        await service.ended.wait()
    await stop(task)
    assert service.reports[-1].pack.digest == zoo.pack("shapes").digest
    assert not mark.exists()


async def test_a_lost_lease_ends_the_import(
    jobs: tuple[Jobs, str], zoo: Zoo, tmp_path: Path
) -> None:
    service, address = jobs
    service.lost = True
    task = await serve(address, tmp_path)
    await service.waiting.put(job(zoo.checkpoint("shapes"), tmp_path / "packs"))
    async with asyncio.timeout(60):
        await service.reported.wait()
        while imports_under_way():  # noqa: ASYNC110 - the process table has no event
            await asyncio.sleep(0.05)
    await stop(task)
    assert not (tmp_path / "packs").exists()

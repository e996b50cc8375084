"""The prepared parent: what it keeps to itself, what its children share, and what comes of it when
a child, the parent or the importer ends as none should.
"""

import asyncio
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from importer import child
from importer.processes import library_files, replacement
from importer.processes.forked_child import Zygote, ZygoteLost
from importer.processes.fresh_child import FreshChild
from importer.processes.prepared import Prepared
from importer.processes.running import Running
from tests.contract.imports import children_of, forked, import_in_child, parent, refusal_of
from tests.models import Zoo, build_woken, save
from tests.waiting import becomes, until

SECRET = "yp_0123456789_a-key-of-this-pool"


def program(run: str, before: str = "") -> Sequence[str]:
    """A parent without libraries, whose children run this code: a function's body."""
    return (
        "-c",
        f"""
import os, signal, subprocess, sys, threading, time
from importer import job
from importer.processes import zygote
job.import_libraries, seeds = (lambda: None), job.seed_anew
job.seed_anew = lambda: None
{before}
def run():
    {run}
    return 0
zygote.main(run)
""",
    )


async def said(running: Running) -> tuple[int | None, Any]:
    """How a child ended, and what it said in one line of JSON."""
    text, errors = await running.lines.read(), await running.errors.read()
    status = await running.wait()
    running.close()
    return status, json.loads(text) if text else errors.decode()


def is_there(pid: int) -> bool:
    """In the process table, if only as a name."""
    return Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- what it has ----------------------------------------------------------------------------------


def memory_of(pid: int) -> Iterator[bytes]:
    """What a process has in memory that it may write to, part by part."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *rest = line.split()
            if not rights.startswith("rw") or rest[-1] == "[vvar]":
                continue
            first, last = (int(end, 16) for end in place.split("-"))
            memory.seek(first)
            yield memory.read(last - first)


def opened(pid: int) -> list[str]:
    """What the descriptors of a process are of, but for the clock of libuuid, which a library asks
    where the host has one; children close it.
    """
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link != "/var/lib/libuuid/clock.txt"]


def threads_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


async def test_nothing_of_a_user_and_no_secret_comes_into_the_parent(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files, orders and answers; the words are looked for in all of its memory."""
    monkeypatch.setenv("YOLOPOOL_IMPORTER_API_KEY", SECRET)
    handle = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(handle, True)  # one of the importer's own, that a careless one left open
    in_a_file, in_an_order, in_a_path = "Zqxwine-glass", "Zqxorder", "Zqxwork"
    model = build_woken("yolov8n.yaml", 1)
    model.names = {number: f"{in_a_file} {number}" for number in range(80)}
    path, of = save(model, tmp_path / "model.pt"), child.Architecture(in_an_order, ("a",))
    async with parent() as zygote:
        pack = await import_in_child(path, tmp_path / in_a_path, start=zygote.start)
        assert pack.class_names[7] == f"{in_a_file} 7"
        refusal = await refusal_of(path, tmp_path / "order", weights_of=of, start=zygote.start)
        assert refusal.reason == "ARTIFACT_INVALID"
        pid = zygote.pid
        await becomes(lambda: len(opened(pid)) == 4)  # the last is the channel
        assert str(tmp_path) not in opened(pid)
        words = [word.encode() for word in (SECRET, in_a_file, in_an_order, in_a_path)]
        # The word is one that is found where it is: the order of what it was started with.
        there, found = b"YOLOPOOL_PARENT_PID", set[bytes]()  # beside where the key would be
        for part in memory_of(pid):
            found |= {word for word in (*words, there) if word in part}
        assert found == {there}
        assert threads_of(pid) == 1
    os.close(handle)


async def test_children_have_random_numbers_of_their_own(tmp_path: Path) -> None:
    draw = (
        "seeds(); import json, random, numpy, torch; print(json.dumps([random.random(), "
        "float(numpy.random.rand()), float(torch.rand(())), os.urandom(4).hex()]), flush=True)"
    )
    async with parent(program(draw, "import random, numpy.random, torch")) as zygote:
        drawn = [await said(await zygote.start(b"", tmp_path)) for _ in range(2)]
    assert [status for status, _ in drawn] == [0, 0]
    assert not set(drawn[0][1]) & set(drawn[1][1])


async def test_a_child_has_its_own_descriptors_and_session(tmp_path: Path) -> None:
    look = (
        "import json; print(json.dumps([sorted(map(int, os.listdir('/proc/self/fd'))), "
        "os.getsid(0) == os.getpid(), sys.stdin.read()]), flush=True)"
    )
    order = b"x" * 200_000  # more than a pipe holds
    async with parent(program(look)) as zygote:
        status, (descriptors, leads, read) = await said(await zygote.start(order, tmp_path))
    assert (status, descriptors, leads) == (0, [0, 1, 2, 3], True)  # the fourth looks at them
    assert read.encode() == order


# --- how children end -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "status"),
    [
        ("return 3", 3),
        ("sys.exit(4)", 1),
        ("raise MemoryError", 1),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ],
)
async def test_the_end_of_a_child_is_told(run: str, status: int, tmp_path: Path) -> None:
    async with parent(program(run)) as zygote:
        assert (await said(await zygote.start(b"", tmp_path)))[0] == status
        assert zygote.has_crashed == (status == -signal.SIGSEGV)
        assert not children_of(zygote.pid)


async def test_a_child_that_is_killed_takes_with_it_what_it_started(tmp_path: Path) -> None:
    start = "import json; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True)"
    async with parent(program(f"{start}; time.sleep(600)")) as zygote:
        killed = await zygote.start(b"", tmp_path)
        grandchild = int(await killed.lines.readline())
        killed.kill()
        assert (await said(killed))[0] == -signal.SIGKILL
        await becomes(lambda: not is_running(grandchild))
    async with parent(program(start)) as zygote:  # one that ends by itself
        status, grandchild = await said(await zygote.start(b"", tmp_path))
        assert status == 0
        await becomes(lambda: not is_running(grandchild))


async def test_nobody_who_waits_is_a_child_without_work(tmp_path: Path) -> None:
    """The importer gives up while the fork is under way, or goes on without the child."""
    async with parent(program("time.sleep(600)")) as zygote:
        asked = asyncio.ensure_future(zygote.start(b"", tmp_path))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await becomes(lambda: not children_of(zygote.pid))
        status, _ = await _killed(await zygote.start(b"", tmp_path))
        assert status == -signal.SIGKILL


async def _killed(running: Running) -> tuple[int | None, Any]:
    running.kill()
    return await said(running)


async def test_who_waits_for_a_parent_that_hangs_is_told_of_its_end(tmp_path: Path) -> None:
    """It is ended because a child of it can't be killed otherwise, while another is asked for."""
    async with parent(program("time.sleep(600)")) as zygote:
        running = await zygote.start(b"", tmp_path)
        os.kill(zygote.pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(zygote.start(b"", tmp_path))
        await asyncio.sleep(0.1)
        zygote.close()  # as `kill` does after a while
        with pytest.raises(ZygoteLost):
            await asked
        assert (await said(running))[0] is None
        with pytest.raises(ZygoteLost):
            await zygote.start(b"", tmp_path)


async def test_an_importer_without_descriptors_loses_none(tmp_path: Path) -> None:
    before = descriptors()
    async with parent(program("time.sleep(600)")) as zygote:
        its_own = descriptors()
        for free in range(7):
            with few_descriptors(free), pytest.raises(OSError, match="Too many open files"):
                await zygote.start(b"", tmp_path)
            await asyncio.sleep(0)
            assert descriptors() == its_own, free
    for free in range(6):
        with few_descriptors(free), pytest.raises(OSError, match="Too many open files"):
            Zygote(tmp_path, program("return 0"))
        assert descriptors() == before, free


def descriptors() -> int:
    """How many this process has open, with the one that looks."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """This process may open so many more."""
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1, hard))
    for descriptor in kept[64 - free :]:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in kept[: 64 - free]:
            os.close(descriptor)


@pytest.mark.parametrize("takes_in_orphans", [False, True])
async def test_children_end_with_their_parent(takes_in_orphans: bool, tmp_path: Path) -> None:
    """And leave nothing in the process table, also of a process that takes in orphans, as the
    first of a container does.
    """
    libc, subreaper = ctypes.CDLL(None), 36
    libc.prctl(subreaper, int(takes_in_orphans))
    async with parent(program("time.sleep(600)")) as zygote:
        running = await zygote.start(b"", tmp_path)
        os.kill(zygote.pid, signal.SIGKILL)
        assert (await said(running))[0] is None
        if not takes_in_orphans:
            await becomes(lambda: not is_running(running.pid), 10)
        else:
            assert not is_there(running.pid)
    libc.prctl(subreaper, 0)


def test_parent_and_children_end_with_the_importer(tmp_path: Path) -> None:
    importer = subprocess.Popen(
        [sys.executable, "-c", _IMPORTER, json.dumps(program("time.sleep(600)")), str(tmp_path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with importer:
        assert importer.stdout is not None
        pids = json.loads(importer.stdout.readline())
        assert all(map(is_running, pids))
        importer.kill()
    until("the parent and its child end", lambda: not any(map(is_running, pids)))


_IMPORTER = """
import asyncio, json, sys
from pathlib import Path
from importer.processes.forked_child import Zygote
from importer.processes.fresh_child import FreshChild
async def main():
    zygote = Zygote(Path(sys.argv[2]), json.loads(sys.argv[1]))
    await zygote.ready()
    child = await zygote.start(b"", Path(sys.argv[2]))
    print(json.dumps([zygote.pid, child.pid]), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


# --- when another is begun, or none ---------------------------------------------------------------


async def test_a_parent_with_threads_is_not_used(tmp_path: Path) -> None:
    """The child is then an interpreter of its own."""
    threads = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    bad = program("return 0", threads)
    prepared = Prepared(tmp_path, time.monotonic, lambda folder: Zygote(folder, bad))
    with structlog.testing.capture_logs() as logs:
        children = [await prepared.start(b"", tmp_path) for _ in range(2)]
    for running in children:
        assert isinstance(running, FreshChild)
        await _killed(running)
    (told,) = [log for log in logs if "can't be prepared" in log["event"]]
    assert "2 threads run here" in told["why"]
    prepared.close()


async def test_an_import_whose_parent_was_killed_is_told(zoo: Zoo, tmp_path: Path) -> None:
    """As by a host without memory: the job begins again, and the next has another parent."""
    sleepy = program("time.sleep(600)")
    prepared = Prepared(tmp_path, time.monotonic, lambda folder: Zygote(folder, sleepy))
    zygote = await prepared.prepare()
    assert zygote is not None
    work = asyncio.ensure_future(
        import_in_child(zoo.checkpoint("shapes"), tmp_path / "work", start=prepared.start)
    )
    await becomes(lambda: children_of(zygote.pid))
    os.kill(zygote.pid, signal.SIGKILL)
    with pytest.raises(child.ParentLost):
        await work
    another = await prepared.prepare()
    assert another is not None
    assert another.pid != zygote.pid
    prepared.close()


async def test_a_parent_is_replaced_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, after many imports, and after an installer was at work."""
    monkeypatch.setattr(replacement, "MAX_FORKS", 5)
    crash = "os.kill(os.getpid(), signal.SIGSEGV if sys.stdin.read() else 0)"
    prepared = Prepared(tmp_path, time.monotonic, lambda folder: Zygote(folder, program(crash)))
    pids = []

    async def run(order: bytes = b"") -> None:
        await said(await prepared.start(order, tmp_path))
        zygote = await prepared.prepare()
        assert zygote is not None
        pids.append(zygote.pid)

    await run()
    await run()
    assert len(set(pids)) == 1
    await run(b"crash")
    assert len(set(pids)) == 2
    site = tmp_path / "site"
    (site / "a-1.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    await run()
    assert len(set(pids)) == 3
    (site / "a-1.dist-info").rename(site / "a-2.dist-info")
    await run()
    await run()
    assert len(set(pids)) == 4
    for _ in range(replacement.MAX_FORKS):
        await said(await prepared.start(b"", tmp_path))
    await run()
    assert len(set(pids)) == 5
    # Those that were replaced have ended, and this one ends with its importer.
    assert [is_running(pid) for pid in dict.fromkeys(pids)] == [False] * 4 + [True]
    prepared.close()
    assert not is_running(pids[-1])


async def test_a_replaced_parent_ends_with_its_last_child(tmp_path: Path) -> None:
    async with parent(program("sys.stdin.read(); time.sleep(600)")) as zygote:
        running = await zygote.start(b"", tmp_path)
        zygote.retire()
        assert is_running(zygote.pid)
        await _killed(running)
        assert not is_running(zygote.pid)


def test_files_of_the_library_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ultralytics"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = library_files.fingerprint()
    assert library_files.fingerprint() == before
    (package / "__init__.py").write_text("changed = True")
    assert library_files.fingerprint() != before


async def test_two_imports_at_once_share_a_parent(zoo: Zoo, tmp_path: Path) -> None:
    names = ("a", "b", "c")
    packs = await asyncio.gather(
        *(
            import_in_child(zoo.checkpoint("shapes"), tmp_path / name, start=forked)
            for name in names
        )
    )
    assert {pack.digest for pack in packs} == {zoo.pack("shapes").digest}

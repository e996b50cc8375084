"""A child whose safe mode was broken: what code in it, behind the sandbox, can still reach.

The code runs for real, in place of what reads the user's file: in an interpreter of its own that
took the sandbox's two steps, and in a child that a prepared parent forked for a job.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from importer import child
from importer.refusal import ImportRefused
from tests import broken_code
from tests.contract.imports import children_of, ignore, import_in_child, parent, refusal_of
from tests.models import Zoo
from yolopool.server.confinement import landlock
from yolopool.v1.types_pb2 import VersionSettings

needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.WHOLE_ABI, reason="needs a kernel with Landlock"
)
# What is to be imported before, where no parent has.
_BEGIN = (
    "import ctypes, fcntl, json, mmap, os, resource, shutil, socket, subprocess, sys, threading"
)
_BROKEN = (
    broken_code.TOOLS
    + """
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise PermissionError(ctypes.get_errno())
def in_a_thread(path):
    seen = []
    def read():
        try: seen.append(path.read_bytes())
        except OSError: pass
    thread = threading.Thread(target=read)
    thread.start(); thread.join()
    if not seen: raise PermissionError
def inherited():
    links = []
    for number in os.listdir("/proc/self/fd"):
        try: links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError: pass
    if not [link for link in links if "socket" in link or "pidfd" in link]: raise PermissionError
other, job = store / "artifacts" / "other", Path(given["job"])
refused = {
    "another's artifact": lambda: other.read_bytes(),
    "another's artifact, in a thread": lambda: in_a_thread(other),
    "another's pack": lambda: (store / "packs" / "p" / "weights.bin").read_bytes(),
    "names in the store": lambda: os.listdir(store / "artifacts"),
    "another job's file": lambda: (job / "artifact.pt").read_bytes(),
    "a link to another's": lambda: ((own / "l").symlink_to(other), (own / "l").read_bytes()),
    "a hard link to another's": lambda: (os.link(other, own / "h"), (own / "h").read_bytes()),
    "another's, moved here": lambda: os.rename(other, own / "moved"),
    "by way of /proc": lambda: Path(f"/proc/self/root{other}").read_bytes(),
    "by way of a folder": lambda: os.open("other", os.O_RDONLY, dir_fd=os.open(
        store / "artifacts", os.O_PATH)),
    "users of the host": lambda: Path("/etc/passwd").read_text(),
    "passwords of the host": lambda: Path("/etc/shadow").read_text(),
    "a home": lambda: os.listdir(Path(given["home"])),
    "a key in a home": lambda: (Path(given["home"]) / ".ssh" / "id").read_text(),
    "environment of the host": lambda: Path("/proc/1/environ").read_bytes(),
    "environment of its parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "command of its parent": lambda: Path(f"/proc/{os.getppid()}/cmdline").read_bytes(),
    "memory of its parent": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "files of its parent": lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
    "a new file in the store": lambda: (store / "packs" / "new").write_text("x"),
    "a new folder in the store": lambda: (store / "packs" / "new").mkdir(),
    "its artifact changed": lambda: open(given["artifact"], "r+b"),
    "its artifact cut": lambda: os.truncate(given["artifact"], 0),
    "its artifact cut on opening": lambda: os.close(os.open(
        given["artifact"], os.O_RDONLY | os.O_TRUNC)),
    "its artifact removed": lambda: os.unlink(given["artifact"]),
    "another's removed": lambda: os.unlink(other),
    "another's shut": lambda: os.chmod(other, 0),
    "another's aged": lambda: os.utime(other, (0, 0)),
    "another's marked": lambda: os.setxattr(other, "user.a", b"b"),
    "another's given away": lambda: os.chown(other, 1, 1),
    "a temporary file of the host": lambda: made(Path("/tmp", given["name"])),
    "a file of the library": lambda: open(numpy.__file__, "a"),
    "a library changed": lambda: made(Path(numpy.__file__).parent / given["name"]),
    "a device": lambda: os.mknod(own / "device", 0o20600, os.makedev(1, 1)),
    "memory of the host": lambda: open("/dev/mem", "rb"),
    "tracing": lambda: call("ptrace", 16, os.getppid(), 0, 0),
    "a mount": lambda: call("mount", b"/", str(own).encode(), None, 4096, None),
    "another root": lambda: os.chroot(own),
    "a UNIX socket": lambda: socket.socket(socket.AF_UNIX),
    "a pair of sockets": lambda: socket.socketpair(),
    "the network": lambda: socket.socket(),
    "a program": lambda: subprocess.run(["true"]),
    "a child": lambda: os.fork() or os._exit(0),
    "a signal": lambda: os.kill(os.getppid(), 0),
    "a handle of its parent": inherited,
    "rules of its own": lambda: call("unshare", 0x10000000),
    "a signal by way of a file": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid()),
    "a signal by a longer number": lambda: call(
        "syscall", 72 if os.uname().machine == "x86_64" else 25, 1,
        ctypes.c_ulong(1 << 32 | fcntl.F_SETOWN), os.getppid()),
    "a signal of its choice": lambda: fcntl.fcntl(1, fcntl.F_SETSIG, 9),
    "a life after its parent": lambda: call("prctl", 1, 0, 0, 0, 0),
    "memory that others may look at": lambda: call("prctl", 4, 1, 0, 0, 0),
    # What they are is set anew: nothing changes where the call succeeds.
    "limits of its parent": lambda: resource.prlimit(
        os.getppid(), resource.RLIMIT_CPU, (-1, -1)),
    "priority of its parent": lambda: os.setpriority(
        os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid())),
    "cores of its parent": lambda: os.sched_setaffinity(
        os.getppid(), os.sched_getaffinity(os.getppid())),
    "turns of its parent": lambda: os.sched_setscheduler(
        os.getppid(), os.SCHED_OTHER, os.sched_param(0)),
}
for name in given["attempts"] or refused:
    attempt(name, refused[name])
escapes = [name for name, how in found.items() if how == "done"]
work = {
    "its artifact": lambda: Path(given["artifact"]).read_bytes(),
    "its folder": lambda: ((own / "d").mkdir(), (own / "d" / "f").write_text("x"),
        (own / "d" / "f").rename(own / "f"), os.listdir(own), (own / "f").unlink(),
        shutil.rmtree(own / "d")),
    "a library": lambda: Path(numpy.__file__).read_bytes(),
    "itself": lambda: Path("/proc/self/statm").read_text(),
    "a map of its file": lambda: mmap.mmap(os.open(given["artifact"], 0), 0, prot=1),
}
for name, action in work.items():
    attempt(name, action)
seen = json.dumps([warnings, escapes, {name: found[name] for name in work}, len(refused)])
"""
)
_FRESH = f"""
{_BEGIN}
from pathlib import Path
from importer import sandbox
given = json.loads(sys.argv[1])
own, store = Path(given["own"]), Path(given["store"])
warnings = sandbox.before_imports([Path(given["artifact"])], own)
import numpy  # a library that comes afterwards
warnings += sandbox.after_imports(2**30, 10**6, 60)
{_BROKEN}
print(seen)
"""
# The job's own steps, up to the one that would open the file.
_FORKED = f"""
{_BEGIN}
import numpy
from pathlib import Path
from importer import archive, job, sandbox
from importer.processes import zygote
job.import_libraries, job.seed_anew = (lambda: None), (lambda: None)
job._for_torch = lambda build: None
given = json.loads(sys.argv[1])
own, store = Path(given["own"]), Path(given["store"])
warnings = []
def noted(step):
    def run(*arguments):
        found = step(*arguments)
        warnings.extend(found)
        return found
    return run
sandbox.before_imports = noted(sandbox.before_imports)
sandbox.after_imports = noted(sandbox.after_imports)
def broken(artifact, most_bytes):
    # As at the top of a module: it has names of its own, and functions that see them.
    scope = globals()
    exec({_BROKEN!r}, scope)
    (own / "seen").write_text(scope["seen"])
archive.is_onnx = lambda artifact: False
archive.check = broken
del sys.argv[1]
zygote.main()
"""


@dataclass(frozen=True)
class Host:
    """A store with the files of two users, the scratch folders of two jobs, and a home."""

    own: Path
    store: Path
    job: Path
    home: Path
    artifact: Path

    def run(self, program: str = sys.executable, attempts: Sequence[str] = ()) -> Any:
        """In an interpreter. `attempts`: some of them by name; none: all."""
        command = [program, "-c", _FRESH, self._order(attempts)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def run_forked(self, attempts: Sequence[str] = ()) -> Any:
        """In a child that a prepared parent forked."""
        async with parent(("-c", _FORKED, self._order(attempts))) as zygote:
            limits = child.Limits(2**30, 60)
            with pytest.raises(ImportRefused):  # the digest that it was to have is none
                await child.run(
                    self.artifact, "", VersionSettings(), self.own, limits, ignore,
                    start=zygote.start,
                )  # fmt: skip
            assert not children_of(zygote.pid)
        return json.loads((self.own / "seen").read_text())

    def _order(self, attempts: Sequence[str]) -> str:
        order: dict[str, Any] = {
            name: str(getattr(self, name)) for name in self.__dataclass_fields__
        }
        order |= {"name": f"yolopool-escape-{os.getpid()}", "attempts": list(attempts)}
        return json.dumps(order)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    store = tmp_path / "store"
    made = Host(
        tmp_path / "scratch" / "1",
        store,
        tmp_path / "scratch" / "2",
        tmp_path / "home",
        store / "artifacts" / "own",
    )
    files = {
        store / "artifacts" / "own": "mine",
        store / "artifacts" / "other": "theirs",
        store / "packs" / "p" / "weights.bin": "theirs",
        made.job / "artifact.pt": "theirs",
        made.home / ".ssh" / "id": "secret",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made.own.mkdir()
    yield made
    assert {path: path.read_text() for path in files} == files


@needs_landlock
@pytest.mark.parametrize("way", ["forked", "fresh"])
async def test_broken_code_reaches_its_own_files_and_nothing_else(way: str, host: Host) -> None:
    found = await host.run_forked() if way == "forked" else host.run()
    warnings, escapes, works, tried = found
    assert warnings == []
    assert escapes == []
    assert set(works.values()) == {"done"}, works
    assert tried > 40


def without_landlock(folder: Path) -> Path:
    """A Python under a filter that knows nothing of Landlock, as older kernels and runtimes do."""
    python = folder / "python"
    python.write_text(f"""#!{sys.executable}
import errno, os, pyseccomp, sys
calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), 444)
calls.load()
os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
""")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("way", ["forked", "fresh"])
async def test_the_attempts_would_work_without_the_confinement(
    way: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would show nothing: the same code reads these files where it may."""
    reads = ("another's artifact", "another job's file", "a key in a home", "users of the host")
    filtered = (
        "its artifact cut", "another's shut", "the network", "a program", "limits of its parent",
    )  # fmt: skip
    python = str(without_landlock(tmp_path))
    if way == "fresh":
        found = host.run(python, (*reads, *filtered))
    else:
        monkeypatch.setattr(sys, "executable", python)
        found = await host.run_forked((*reads, *filtered))
    warnings, escapes, _, _ = found
    assert any("confinement of files (Landlock is not" in warning for warning in warnings)
    assert escapes == list(reads)  # the others are refused by the filter of system calls alone


async def test_a_host_without_landlock_is_a_weaker_sandbox(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(without_landlock(tmp_path)))
    of = zoo.checkpoint("shapes")
    async with parent() as zygote:
        pack = await import_in_child(of, tmp_path / "work", start=zygote.start)
        refusal = await refusal_of(
            of, tmp_path / "strict", require_sandbox=True, start=zygote.start
        )
    assert any("refused the confinement of files" in warning for warning in pack.warnings)
    assert refusal.reason == "SANDBOX_WEAKER"
    assert "confinement of files" in refusal.message


@needs_landlock
async def test_a_whole_sandbox_imports_without_a_warning_of_it(zoo: Zoo, tmp_path: Path) -> None:
    pack = await import_in_child(zoo.checkpoint("shapes"), tmp_path / "work", require_sandbox=True)
    assert not [warning for warning in pack.warnings if "sandbox" in warning]

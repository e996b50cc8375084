"""A worker process confines itself before it imports what it runs models with: what code in it can
reach then, how it serves, and what is said where the host can't confine it.
"""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import broken_code
from yolopool.server.confinement import landlock

pytestmark = pytest.mark.e2e
needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.WHOLE_ABI, reason="needs a kernel with Landlock"
)
# As `python -m worker` begins; then code that a fault in a library let in.
_BROKEN = """
from worker.process.confinement import confine
from worker.settings import read_settings
settings = read_settings(given["flags"])
how = confine(settings)
import tempfile
import numpy
other = Path(given["other"])
refused = {
    "a file of others": lambda: other.read_bytes(),
    "a file of others, by a child": lambda: subprocess.run(["cat", other], check=True,
        capture_output=True),
    "names of others": lambda: os.listdir(other.parent),
    "a home": lambda: os.listdir(Path.home()),
    "users of the host": lambda: Path("/etc/passwd").read_text(),
    "environment of its parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "memory of its parent": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "a file of others changed": lambda: open(other, "r+b"),
    "a file of others removed": lambda: other.unlink(),
    "a pack changed": lambda: open(given["pack"], "r+b"),
    "a pack made": lambda: made(Path(given["pack"]).parent / "new"),
    "a temporary file of the host": lambda: made(Path("/tmp", given["name"])),
    "a library changed": lambda: made(Path(numpy.__file__).parent / given["name"]),
    "a signal to its parent": lambda: os.kill(os.getppid(), 0),
}
work = {
    "a pack": lambda: Path(given["pack"]).read_bytes(),
    "its cache": lambda: made(settings.data_dir / "file"),
    "a temporary file": lambda: tempfile.NamedTemporaryFile().close(),
    "a certificate that was renewed": lambda: Path(given["certificate"]).read_text(),
    "the processor": lambda: Path("/proc/cpuinfo").read_text(),
    "cores": lambda: os.listdir("/sys/devices/system/cpu"),
    "a process of its own": lambda: subprocess.run([sys.executable, "-c", "import numpy"],
        check=True),
    "a name": lambda: socket.getaddrinfo("localhost", 1),
    "a connection": lambda: socket.create_connection(given["server"]).close(),
}
for name, action in {**refused, **work}.items():
    attempt(name, action)
print(json.dumps([how, [name for name in refused if found[name] == "done"],
    {name: found[name] for name in work if found[name] != "done"}]))
"""


def run_broken(tmp_path: Path, *flags: str) -> Any:
    paths = {
        "other": tmp_path / "store" / "artifacts" / "theirs",
        "pack": tmp_path / "store" / "packs" / "p" / "weights.bin",
        "certificate": tmp_path / "certs" / "worker.pem",
    }
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    (tmp_path / "home").mkdir()
    own = [f"--data-dir={tmp_path / 'worker'}", f"--tls-cert={paths['certificate']}"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = broken_code.run(
            _BROKEN,
            {
                "flags": ["--device=cpu", *own, *flags],
                "server": server.getsockname(),
                **{name: str(path) for name, path in paths.items()},
            },
            environ={"HOME": str(tmp_path / "home")},
        )
    assert paths["other"].read_text() == paths["pack"].read_text() == "theirs"
    return told


@needs_landlock
def test_code_in_a_worker_reads_packs_and_libraries_and_changes_its_cache(tmp_path: Path) -> None:
    (tmp_path / "store" / "packs").mkdir(parents=True)
    how, escapes, broken = run_broken(
        tmp_path, "--sandbox=require", f"--may-read={tmp_path / 'store' / 'packs'}"
    )
    assert how == "files"
    assert escapes == []
    assert broken == {}
    # Its temporary files went with it.
    assert list((tmp_path / "worker").iterdir()) == []


@needs_landlock
def test_without_a_folder_of_packs_it_reads_what_its_user_may(tmp_path: Path) -> None:
    how, escapes, broken = run_broken(tmp_path)
    assert how == "writes"
    assert not [name for name in escapes if "changed" in name or "made" in name]
    assert {"a file of others", "users of the host"} <= set(escapes)
    assert broken == {}


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--sandbox=require"], "--may-read names no folder"),
        (["--may-read=/nowhere/packs"], "/nowhere/packs: it is not there"),
        (["--sandbox=require", "--may-read=/usr", "--device=cuda"], "nvidia-modprobe"),
    ],
    ids=["no folder", "a folder that is not there", "no driver"],
)
def test_what_can_not_be_is_said_before_anything_starts(
    flags: list[str], why: str, tmp_path: Path
) -> None:
    if "cuda" in flags[-1] and Path("/dev/nvidia-uvm").exists():
        pytest.skip("needs a host without NVIDIA's driver")
    command = [sys.executable, "-m", "worker", "--device=sim:0", f"--data-dir={tmp_path}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert why in done.stderr


def test_a_host_without_landlock_is_reported(tmp_path: Path) -> None:
    """Under a filter that does not know its calls, as older kernels and runtimes do."""
    code = f"""
import errno, pyseccomp
calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), 444)
calls.load()
from worker.process.confinement import confine
from worker.settings import read_settings
print(confine(read_settings(["--device=cpu", "--data-dir={tmp_path}"])))
confine(read_settings(["--device=cpu", "--data-dir={tmp_path}", "--may-read=/usr",
    "--sandbox=require"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "none" in done.stdout.splitlines()[-1]
    assert "Landlock is not in its kernel" in done.stdout + done.stderr
    assert "as --sandbox require asks" in done.stderr

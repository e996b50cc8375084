"""The callers in other languages, compiled and run: the same boxes as Python's, and the reasons.

A full run alone: they need compilers, and TypeScript the npm registry.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.page_blocks import ROOT
from yolopool import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.matrix(sample=0), pytest.mark.timeout(300)]
CALLERS = ROOT / "examples" / "callers"
IMAGE = demo.find().images[3]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, demo.MAIN, demo.find().models[demo.MAIN])
            yield pool.address


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def built(command: Sequence[str], folder: Path) -> str:
    done = run(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers_as_python(caller: Sequence[str], folder: Path, address: str) -> None:
    """Boxes, a refusal that no repeat helps, and an address where nobody answers."""
    with Client(address) as client:
        found = client.detect(IMAGE, model=demo.MAIN)
    expected = [
        " ".join([one.class_name, f"{one.confidence:.3f}", *(f"{side:.1f}" for side in one.xyxy)])
        for one in found
    ]
    assert len(expected) == 4
    assert built([*caller, address, str(IMAGE), demo.MAIN], folder).splitlines() == expected
    refused = run([*caller, address, str(IMAGE), "nothing"], folder)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error MODEL_NOT_FOUND: ")
    lost = run([*caller, "127.0.0.1:1", str(IMAGE), demo.MAIN], folder)  # until the deadline
    assert lost.returncode == 1
    assert lost.stderr.split()[:2][-1] in ("UNAVAILABLE:", "DEADLINE_EXCEEDED:")


def needs(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"this machine has no {', '.join(missing)}")


def test_java(address: str, tmp_path: Path) -> None:
    needs("javac", "protoc", "grpc_java_plugin")
    shutil.copytree(CALLERS / "java", tmp_path, dirs_exist_ok=True)
    command = built(["env", f"PROTOS={ROOT / 'protos'}", "sh", "build.sh"], tmp_path).split()
    answers_as_python(command[: command.index("Detect") + 1], tmp_path, address)


def test_typescript(address: str, tmp_path: Path) -> None:
    needs("node", "npm")
    folder = tmp_path / "examples" / "callers" / "typescript"
    ignored = shutil.ignore_patterns("node_modules", "stubs", "build")
    shutil.copytree(CALLERS / "typescript", folder, ignore=ignored)
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    built(["npm", "ci", "--no-fund", "--no-audit"], folder)
    built(["npm", "run", "build"], folder)
    answers_as_python(["node", "build/detect.js"], folder, address)

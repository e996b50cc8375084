"""The wheel holds the product whole: installed without the checkout, `yolopool demo` runs."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.models import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
# Runs at the start of every Python of the venv, and notes each file of the checkout that is opened.
# The venv of the tests may lie in the checkout; the libraries in it are no part of that.
GUARD = """
import os, sys
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith({root!r} + os.sep) and not path.startswith({libraries!r} + os.sep):
            with open({log!r}, "a") as log:
                log.write(path + chr(10))
sys.addaudithook(note)
with open({log!r}, "a") as log:
    log.write("started" + chr(10))
"""


def run(*command: str | Path, cwd: Path) -> str:
    kept = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command, cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make dist` builds; without its isolation, which downloads the builder."""
    folder = tmp_path_factory.mktemp("dist")
    flags = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    run(sys.executable, "-m", "pip", "wheel", *flags, str(ROOT), cwd=folder)
    (path,) = folder.glob("yolopool-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel in it, and the libraries of this one behind it on the path."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    libraries = sysconfig.get_path("purelib")
    (own,) = folder.glob("lib/python3*/site-packages")
    # The .pth files of that folder are not read: an editable install in it is not found.
    (own / "libraries.pth").write_text(f"{libraries}\n")
    guard = GUARD.format(root=str(ROOT), libraries=sys.prefix, log=str(folder / "log"))
    (own / "checkout_guard.py").write_text(guard)
    (own / "guard.pth").write_text("import checkout_guard\n")
    return folder


def test_a_demo_runs_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    (installed / "log").unlink(missing_ok=True)
    told = run(installed / "bin" / "yolopool", "demo", "--devices=cpu", cwd=tmp_path)
    assert "annotated image" in told
    assert (tmp_path / "yolopool-demo.jpg").stat().st_size > 1_000
    log = (installed / "log").read_text().splitlines()
    # The command line, the control plane, the importer and its jobs, the worker.
    assert log.count("started") > 5
    assert set(log) == {"started"}


def test_every_package_is_in_it(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil\n"
        "for name in ('yolopool', 'control_plane', 'worker', 'importer'):\n"
        "    package = importlib.import_module(name)\n"
        "    names = [m.name for m in pkgutil.walk_packages(package.__path__, name + '.')]\n"
        "    print(package.__file__, *sorted(names))\n"
    )
    there = run(installed / "bin" / "python", "-c", code, cwd=tmp_path)
    assert all(line.startswith(str(installed)) for line in there.splitlines())
    assert there.replace(str(next(installed.glob("lib/python3*/site-packages"))), str(ROOT)) == run(
        sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", cwd=tmp_path
    )


def test_the_console_s_pages_and_files_are_in_it(installed: Path, tmp_path: Path) -> None:
    code = (
        "from control_plane.console.assets import pages, static_files\n"
        "print(*sorted(pages()), *sorted(static_files()), sep='\\n')"
    )
    there = run(installed / "bin" / "python", "-c", code, cwd=tmp_path)
    assert "vendor/uplot/LICENSE" in there.splitlines()
    assert there == run(
        sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", cwd=tmp_path
    )

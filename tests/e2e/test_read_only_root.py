"""A pool as the images run it: a user without rights, no capability, a root that nobody can write
to, and no folder but its volumes. Put together of mounts, since no container runtime is asked for.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make mounts")

_OUTER = """
set -eu
mount --make-rprivate /
mount --bind / "$JAIL"
mount -o remount,bind,ro "$JAIL"
mount -t proc proc "$JAIL/proc"
mount --rbind /dev "$JAIL/dev"
mount --bind /sys "$JAIL/sys"
# Of root's home the interpreter alone, if it lies there.
mount -t tmpfs -o mode=755 none "$JAIL/root"
for place in "$PYTHON_HOME" "$ENVIRONMENT" "$SOURCE"; do
    mkdir -p "$JAIL$place" 2>/dev/null || true
    mount --bind "$place" "$JAIL$place"
    mount -o remount,bind,ro "$JAIL$place"
done
mount -t tmpfs -o mode=700,uid=10001,gid=10001 none "$JAIL/mnt"
exec chroot "$JAIL" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all \\
    env -i PATH="$ENVIRONMENT/bin:/usr/bin:/bin" PYTHONPATH="$SOURCE" LANG=C.UTF-8 HOME=/none \\
    TMPDIR=/mnt PYTHONDONTWRITEBYTECODE=1 YOLO_CONFIG_DIR=/mnt/scratch YOLO_OFFLINE=1 \\
    SOURCE="$SOURCE" \\
    python -c "$INNER"
"""
_INNER = """
import os, subprocess, sys, time
from pathlib import Path
from yolopool.client.client import Client
assert os.getuid() == os.getgid() == 10001
for place in ("/", "/usr", "/etc", os.environ["SOURCE"]):
    try:
        (Path(place) / "file").touch()
    except OSError:
        continue
    raise SystemExit(f"{place} can be written")
for name in ("state", "cache", "scratch"):
    Path("/mnt", name).mkdir()
def start(module, *flags):
    return subprocess.Popen([sys.executable, "-m", module, *flags, "--die-with-parent"],
        stdout=subprocess.PIPE)
plane = start("control_plane", "--data-dir=/mnt/state", "--port=0", "--http-port=0")
import json
address = json.loads(plane.stdout.readline())["grpc"]
importer = start("importer", f"--control-planes={address}", "--scratch-dir=/mnt/scratch")
worker = start("worker", "--devices=cpu", f"--control-planes={address}", "--data-dir=/mnt/cache",
    "--sandbox=require", "--may-read=/mnt/state/store/packs")
examples = Path(os.environ["SOURCE"], "examples", "shapes")
with Client(address) as client:
    version = client.register("shapes", examples / "models" / "shapes.pt", timeout_s=100)
    assert version.state == "READY", version.message
    weaker = [text for text in version.warnings if "confinement of files" in text]
    found = client.detect(examples / "images" / "00000.png", "shapes", timeout_s=60)
    (one,) = client.workers()
print(json.dumps([len(found), weaker, one.labels["sandbox"]]))
for process in (worker, importer, plane):
    process.terminate()
print(json.dumps([process.wait(20) for process in (worker, importer, plane)]))
"""


@needs_root
@pytest.mark.matrix(sample=0)
@pytest.mark.parametrize("device", ["cpu"])
def test_a_pool_lives_without_rights_on_a_root_that_it_can_not_write(
    device: str, tmp_path: Path
) -> None:
    for program in ("unshare", "setpriv", "chroot"):
        assert shutil.which(program), f"{program} of util-linux and coreutils"
    (jail := tmp_path / "jail").mkdir()
    environ = {
        **os.environ,
        "JAIL": str(jail),
        "PYTHON_HOME": sys.base_prefix,
        "ENVIRONMENT": sys.prefix,
        "SOURCE": str(ROOT),
        "INNER": _INNER,
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _OUTER],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=115,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lived, ended = done.stdout.splitlines()[-2:]
    assert lived.endswith('[], "files"]')
    assert int(lived[1:].partition(",")[0]) > 0
    assert ended == "[0, 0, 0]"

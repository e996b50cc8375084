"""What an upload by HTTP takes of a control plane's memory: a large file in one go, and one that is
cut at half and goes on.

    python -m benchmarks.upload_memory --size-mb 2048

The control plane is a process of its own; its peak is the kernel's high water mark, from the moment
before the first byte to the answer. curl sends.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row

MOST_BYTES = 64 * 10**6
_BLOCK_BYTES = 1 << 20


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.upload_memory", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--size-mb", type=int, default=2048, help="of the file, MiB")
    return parser


def make_file(path: Path, size_mb: int) -> str:
    """Writes random bytes; answers their SHA-256."""
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_mb):
            block = os.urandom(_BLOCK_BYTES)
            hasher.update(block)
            file.write(block)
    return hasher.hexdigest()


@contextmanager
def control_plane(folder: Path) -> Iterator[tuple[int, str]]:
    """A control plane without Redis: its process id and its HTTP port."""
    command = [sys.executable, "-m", "control_plane", "--data-dir", str(folder), "--port", "0"]
    command += ["--http-port", "0", "--log-file", str(folder / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = json.loads(process.stdout.readline())["http"]
            while b"ready" not in urlopen(f"http://{address}/readyz").read():
                time.sleep(0.1)
            yield process.pid, address
        finally:
            process.terminate()


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def in_one_go(file: Path, digest: str, address: str) -> None:
    answer = curl("-T", str(file), f"http://{address}/v1/models/large?wait=false")
    assert json.loads(answer)["artifact"] == digest, answer


def cut_at_half(file: Path, digest: str, address: str) -> None:
    url, size = f"http://{address}/v1/artifacts/{digest}", file.stat().st_size
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection, file.open("rb") as opened:
        lines = f"PUT {urlsplit(url).path} HTTP/1.1", f"host: {address}", f"content-length: {size}"
        head = "\r\n".join((*lines, "", ""))
        connection.sendall(head.encode())
        connection.sendfile(opened, 0, size // 2)
    time.sleep(1.0)
    offset = json.loads(curl(url))["received_bytes"]
    assert 0.4 * size < offset <= size // 2, offset
    answer = json.loads(curl("-C", str(offset), "-T", str(file), url))
    assert answer["complete"], answer


def measure(way: Callable[[Path, str, str], None], file: Path, digest: str) -> Row:
    """One upload to a control plane of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="yp-", dir=file.parent) as folder,
        control_plane(Path(folder)) as (pid, address),
    ):
        # The first request of a process loads what all need.
        urlopen(f"http://{address}/v1/models").read()
        before = _status_bytes(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the mark begins anew
        began = time.perf_counter()
        way(file, digest, address)
        took = time.perf_counter() - began
        return {
            "way": way.__name__.replace("_", " "),
            "size_mb": file.stat().st_size / 1e6,
            "seconds": took,
            "before_mb": before / 1e6,
            "peak_mb": (_status_bytes(pid, "VmHWM") - before) / 1e6,
            "after_mb": (_status_bytes(pid, "VmRSS") - before) / 1e6,
        }


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/status has no {name}")


def run(options: argparse.Namespace) -> Result:
    """Both ways."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yp-upload-") as folder:
        file = Path(folder) / "large.pt"
        digest = make_file(file, options.size_mb)
        rows = [measure(way, file, digest) for way in (in_one_go, cut_at_half)]
    worst = max(float(str(row["peak_mb"])) for row in rows)
    check = Check(
        f"an upload of {options.size_mb} MiB takes less than {MOST_BYTES / 1e6:.0f} MB more",
        worst * 1e6 < MOST_BYTES,
        f"{worst:.1f} MB at the peak",
    )
    return Result(
        scenario="upload_memory",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"uploads": tuple(rows)},
        checks=(check,),
    )


if __name__ == "__main__":
    asked = flags().parse_args()
    sys.exit(results.publish(run(asked), asked.results))

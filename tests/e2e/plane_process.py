"""A control plane in a process of its own, and nothing else, for callers that do it harm."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def control_plane(folder: Path, **flags: object) -> Iterator[tuple[dict[str, str], psutil.Process]]:
    """What it says of where it listens, and its process, which is killed at the end. `flags` as on
    its command line, with underscores.
    """
    given = {"port": 0, "http_port": 0, "data_dir": folder, **flags}
    command = [
        *(sys.executable, "-m", "control_plane"),
        *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.kill()
        process.communicate()

"""Model files and packs made for a scenario: an architecture with random weights from a seed.

The model library runs in a child process, so that the generator's process stays small and quiet.
Speed and memory of such a model are real, its boxes mean nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 300.0
_SCRIPT = """
import sys, torch
torch.set_num_threads(1)
torch.manual_seed(int(sys.argv[2]))
from ultralytics import YOLO
YOLO(sys.argv[1]).save(sys.argv[3])
"""
# In float32: a trained checkpoint is saved in half precision, where small changes round away.
_VARY = """
import sys, torch
torch.set_num_threads(1)
torch.manual_seed(int(sys.argv[2]))
from ultralytics import YOLO
model = YOLO(sys.argv[1])
model.model.float()
with torch.no_grad():
    for weight in model.model.parameters():
        weight.mul_(1 + float(sys.argv[4]) * torch.randn_like(weight))
model.save(sys.argv[3])
"""


def make(architecture: str, seed: int, path: Path) -> Path:
    """Writes a weights file of `architecture` (e.g. yolov8s.yaml) and answers its path.

    Raises RuntimeError with the library's words if it can't.
    """
    return _written(_SCRIPT, (architecture, str(seed), str(path)), path)


def vary(checkpoint: Path, seed: int, path: Path, spread: float = 0.01) -> Path:
    """Writes a trained checkpoint with every weight off by a normal factor of 1 +- `spread`: a
    model of the same architecture that finds much the same with other numbers. Raises as `make`.
    """
    return _written(_VARY, (str(checkpoint), str(seed), str(path), str(spread)), path)


def _written(script: str, arguments: Sequence[str], path: Path) -> Path:
    environment = {
        **os.environ,
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(path.parent),
        "ULTRALYTICS_SAFE_LOAD": "1",
    }
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"cannot make {path.name} of {arguments[0]}: {done.stderr[-1000:]}")
    return path


def pack(checkpoint: Path, out: Path, *flags: str) -> Path:
    """Imports a weights file as the pool would, or with more flags; answers the folder of its pack.

    Raises RuntimeError with the importer's words if it can't.
    """
    command = [sys.executable, "-m", "importer", str(checkpoint), f"--out={out}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"cannot import {checkpoint.name}: {done.stdout[-500:]}")
    return Path(json.loads(done.stdout)["pack"])

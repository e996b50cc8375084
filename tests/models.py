"""Checkpoints and packs for tests, made once and kept for as long as what makes them is the same.

A model with random weights finds nothing; `build_woken` calibrates its normalisation on pictures
and shifts its class biases, so that many boxes pass and every stage has something to do.
"""

import copy
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from yolopool.v1.worker_pb2 import PackLocation

U8 = npt.NDArray[np.uint8]
ROOT = Path(__file__).parents[1]
SHAPES = ROOT / "examples" / "shapes"
# Of the zoo: what its files are made by, and when a folder of another make is removed.
_MAKERS = ("importer/**/*.py", "protos/**/*.proto", "yolopool/client/uploads.py", "tests/models.py")
_LIBRARIES = ("torch", "ultralytics", "numpy", "onnx", "onnxruntime", "openvino", "nncf")
_KEPT_S = 7 * 86_400.0
_SCALES = (320, 333, 501, 260)
# What the library makes of a file, by its name; the first that fits.
_KINDS = (
    ("yoloe.*-seg", "YOLOESegModel"),
    ("yoloe", "YOLOEModel"),
    ("world", "WorldModel"),
    ("rtdetr", "RTDETRDetectionModel"),
    ("-seg", "SegmentationModel"),
    ("-pose", "PoseModel"),
    ("-obb", "OBBModel"),
    ("-cls", "ClassificationModel"),
    ("-sem", "SemanticSegmentationModel"),
    ("-depth", "DepthModel"),
    ("", "DetectionModel"),
)
_PASSING = 0.01  # of the cells of a picture, above the default confidence, for each class


def picture(seed: int, height: int, width: int) -> U8:
    """Of the demo's pictures, BGR, tiled to this size: shapes, edges and noise."""
    files = sorted((SHAPES / "images").glob("*.png"))
    image = cv2.imread(str(files[seed % len(files)]))
    assert image is not None
    rows, columns = -(-height // image.shape[0]), -(-width // image.shape[1])
    return np.ascontiguousarray(np.tile(image, (rows, columns, 1))[:height, :width], np.uint8)


def build(yaml_name: str, seed: int) -> Any:
    """A model of the library's yaml, of any task, with random weights and statistics."""
    import torch
    from torch import nn
    from ultralytics.nn import tasks

    kind = next(kind for words, kind in _KINDS if re.search(words, yaml_name))
    torch.manual_seed(seed)
    model: Any = getattr(tasks, kind)(yaml_name, verbose=False)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def build_woken(yaml_name: str, seed: int, *, end_to_end_only: bool = False) -> Any:
    """A model of the library's yaml, of any task, that gives dozens of boxes on `picture`s.

    With `end_to_end_only` it is fused to its one-to-one head, as some published files are. The
    model is the caller's own to change.
    """
    return copy.deepcopy(_woken(yaml_name, seed, end_to_end_only))


@functools.lru_cache(8)
def _woken(yaml_name: str, seed: int, end_to_end_only: bool) -> Any:
    import torch

    model = build(yaml_name, seed)
    # Scaling takes the noise away that such weights live on: some of each.
    scaled = [cv2.resize(picture(i, size, size), (320, 320)) for i, size in enumerate(_SCALES)]
    images = torch.from_numpy(np.stack(scaled))
    batch = images.permute(0, 3, 1, 2).flip(1).float() / 255
    _calibrate(model, batch)
    layers: Any = model.model
    head: Any = layers[-1]
    # Both heads, whichever is used later; what classifies has none of them.
    branches = ("one2many", "one2one") if hasattr(head, "one2one_cv2") else ("one2many",)
    for branch in branches if hasattr(head, "cv2") else ():
        _shrink_boxes(head, branch)
        _shift_classes(model, head, batch, branch)
    model.eval()
    if end_to_end_only:
        model.end2end = True
        model.fuse(verbose=False)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model


def save(model: Any, path: Path, image_size: int = 320) -> Path:
    """Writes a checkpoint as the library's training does."""
    import torch
    from ultralytics.nn.tasks import guess_model_task

    # The library takes a checkpoint for what its arguments say.
    arguments = {"imgsz": image_size, "task": guess_model_task(model)}
    torch.save({"model": model, "ema": None, "train_args": arguments}, path)
    return path


def _calibrate(model: Any, batch: Any) -> None:
    import torch
    from torch import nn

    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean
    with torch.no_grad():
        model(batch)
    model.eval()


def _shrink_boxes(head: Any, branch: str) -> None:
    """Boxes of some two cells, so that neighbours do not all suppress each other."""
    import torch

    for layer in getattr(head, branch)["box_head"]:
        bins = torch.arange(head.reg_max, dtype=torch.float32)
        bias = torch.ones(1) if head.reg_max == 1 else -bins
        layer[-1].bias.data.copy_(bias.repeat(4))


def _shift_classes(model: Any, head: Any, batch: Any, branch: str) -> None:
    import torch

    classifiers = getattr(head, branch)["cls_head"]
    for layer in classifiers:
        layer[-1].bias.data.zero_()
        layer[-1].weight.data.mul_(8)  # scores that differ from cell to cell
    with torch.no_grad():
        _, raw = model(batch)
    answer = raw.get(branch, raw)
    threshold, start = float(np.log(0.25 / 0.75)), 0
    for layer, features in zip(classifiers, answer["feats"], strict=True):
        cells = features.shape[2] * features.shape[3]
        # A class at a time, so that none is everywhere and suppression leaves many.
        of_class = answer["scores"][..., start : start + cells]
        edge = torch.quantile(of_class, 1 - _PASSING, dim=2).amin(0)
        layer[-1].bias.data.add_(threshold - edge)
        start += cells


def import_checkpoint(checkpoint: Path, out: Path, *flags: str) -> dict[str, Any]:
    """Runs `python -m importer` on a file; its report, or the reason and message of a refusal."""
    done = subprocess.run(
        [sys.executable, "-m", "importer", str(checkpoint), f"--out={out}", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if "reason" in report else 0), done.stderr
    return report


def location(folder: Path) -> PackLocation:
    """Where a pack lies, with the digest that its manifest has now."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return PackLocation(uri=folder.as_uri(), digest=digest)


def zoo_folder(cache: Path) -> Path:
    """The folder in `cache` for files of today's importer and libraries. Others grow old there."""
    made_by = hashlib.sha256(sys.version.encode())
    for pattern in _MAKERS:
        for path in sorted(ROOT.glob(pattern)):
            made_by.update(path.read_bytes())
    for path in sorted((SHAPES / "models").glob("*.pt")):
        made_by.update(path.read_bytes())
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    for name in _LIBRARIES:
        made_by.update(f"{name}={installed.get(name)};".encode())
    folder = cache / made_by.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for other in cache.iterdir():
        if other.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


@dataclass(frozen=True, slots=True)
class Zoo:
    """The models of tests: `shapes` of the demo, and woken ones by name. Their files are shared by
    the workers of a run and by runs: a test that changes one changes a copy.
    """

    folder: Path

    def checkpoint(self, name: str) -> Path:
        """A .pt file: shapes, shapes-26, yolov8n, yolo26n, yolov10n, yolo26n-end-to-end, ..."""
        if name.startswith("shapes"):
            return SHAPES / "models" / f"{name}.pt"
        path = self.folder / f"{name}.pt"
        with self._made_once(path) as missing:
            if missing:
                architecture = name.removesuffix("-end-to-end")
                only = architecture != name
                part = path.with_suffix(".part")
                save(build_woken(f"{architecture}.yaml", 7, end_to_end_only=only), part)
                part.rename(path)
        return path

    def pack(self, name: str, *flags: str) -> PackLocation:
        """The pack of a checkpoint, made by the importer with these flags."""
        return self._packed(self.checkpoint(name), name, flags)

    def graph(self, name: str, *flags: str) -> Path:
        """The ONNX file that is exported of a checkpoint: batch and sizes free, uint8."""
        folder = self._packed(self.checkpoint(name), name, ("--backend=onnx", *flags)).uri
        return Path(folder.removeprefix("file://")) / "weights.bin"

    def built(
        self, name: str, backend: str, precision: str = "fp32", head: str = "one-to-many"
    ) -> PackLocation:
        """The pack of a checkpoint for a backend; exported once for all of them."""
        if backend == "torch":
            return self.pack(name, f"--head={head}")
        flags = [f"--backend={backend}", f"--precision={precision}"]
        if precision == "int8":
            flags.append(f"--calibration={SHAPES / 'images'}")
        return self._packed(self.graph(name, f"--head={head}"), f"{name}.{head}", flags)

    def _packed(self, file: Path, name: str, flags: Sequence[str]) -> PackLocation:
        words = "".join(flags).replace("/", "-")
        note = self.folder / f"{name}{words}.pack"
        with self._made_once(note) as missing:
            if missing:
                report = import_checkpoint(file, self.folder / "packs", *flags)
                assert "pack" in report, report
                part = note.with_suffix(".part")
                part.write_text(report["digest"])
                part.rename(note)
        digest = note.read_text()
        found = location(self.folder / "packs" / digest)
        assert found.digest == digest, "a test has changed a pack of the zoo"
        return found

    @contextmanager
    def _made_once(self, path: Path) -> Iterator[bool]:
        """Whether the caller is to make the file; other processes wait until it has."""
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield not path.exists()

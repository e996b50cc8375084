"""The model library's YAML files, and a pack's module beside the library's own fused model."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from worker.packs.pack import Pack
from yolopool.v1.types_pb2 import VersionSettings
from yolopool.v1.worker_pb2 import PackLocation

# By the last word of a file's name; detect where it is none of these.
TASKS = {"seg": "segment", "pose": "pose", "obb": "obb", "cls": "classify"}


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """One of the library's YAML files, at one of its scales: name is what the library calls it."""

    name: str
    folder: str


def parts(name: str) -> tuple[str, str]:
    """Family and task of a name: yolov8n-pose-p6 is yolov8n-p6 and pose."""
    words = name.split("-")
    task = next((TASKS[word] for word in words if word in TASKS), "detect")
    return "-".join(word for word in words if word not in TASKS), task


def library_files(every_scale: bool) -> Iterator[LibraryFile]:
    """All of them, the smallest scale of each or every one, in order."""
    import yaml
    from ultralytics.utils import ROOT

    for path in sorted((Path(ROOT) / "cfg" / "models").glob("*/*.yaml")):
        scales = yaml.safe_load(path.read_text()).get("scales") or {"": None}
        for scale in list(scales)[: None if every_scale else 1]:
            # yolov9c.yaml says its scale in its name already.
            fits = re.fullmatch(r"(yoloe?-?v?\d+)((?:-.*)?)", path.stem)
            name = f"{fits[1]}{scale}{fits[2]}" if fits else path.stem
            yield LibraryFile(name, path.parent.name)


def import_here(checkpoint: Path, folder: Path, **settings: Any) -> PackLocation:
    """The pack of a checkpoint, made by the importer's steps in this process: without its sandbox
    and its limits, and sooner. Raises ImportRefused.

    The library takes a file that is named like one of its own for that: call it something else.
    """
    from importer.torch_import import encode

    folder.mkdir(parents=True, exist_ok=True)
    order = {
        "settings": json_format.MessageToDict(VersionSettings(**settings)),
        "architecture_yaml": "",
        "class_names": [],
        "renamed": {},
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    encode.encode(order, checkpoint, folder, [], lambda fraction, step: None)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return PackLocation(uri=folder.as_uri(), digest=digest)


def library_model(checkpoint: Path, end_to_end: bool) -> Any:
    """The checkpoint as the library's `predict` runs it: loaded, fused, and laid out by itself."""
    import torch
    from ultralytics.nn.tasks import load_checkpoint

    model, _ = load_checkpoint(str(checkpoint))
    if hasattr(model.model[-1], "end2end"):
        model.end2end = end_to_end
    fused = model.fuse(verbose=False).eval()
    return fused.to(memory_format=torch.channels_last)


def pack_module(pack: Pack) -> Any:
    """The module of a pack, as a worker builds it."""
    import torch

    from worker.backends.pytorch import skeleton

    tree = skeleton.Skeleton(pack.skeleton)
    flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
    tree.bind(tree.views(pack.places, flat))
    return tree.module


def difference(checkpoint: Path, pack: Pack, image: Any, end_to_end: bool) -> float:
    """Largest difference of what the pack's module and the library's model give for one image,
    float (1, 3, h, w), in all tensors that post-processing reads. AssertionError where their
    forms differ.
    """
    import torch

    from importer.torch_import import tasks

    with torch.inference_mode():
        theirs = tasks.answer(library_model(checkpoint, end_to_end)(image))
        ours = tasks.answer(pack_module(pack)(image))
    assert [one.shape for one in ours] == [one.shape for one in theirs]
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))

"""Packs changed as one who forges them would: with every digest put right again."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.models import location
from worker.backends.pytorch import skeleton
from worker.packs.pack_store import PackStore
from yolopool.v1.worker_pb2 import PackLocation

Change = Callable[[dict[str, Any]], object]


def rewrite(folder: Path, change: Change, name: str = "manifest.json") -> PackLocation:
    """Changes a JSON file and repairs the digests, as one who forges a pack would."""
    fields = json.loads((folder / name).read_text())
    change(fields)
    text = json.dumps(fields).encode()
    if name == "skeleton.json":
        return rewrite_text(folder, text)
    (folder / name).write_bytes(text)
    return location(folder)


def rewrite_text(folder: Path, text: bytes) -> PackLocation:
    """Puts any bytes in the place of the skeleton."""
    (folder / "skeleton.json").write_bytes(text)

    def repair(manifest: dict[str, Any]) -> None:
        manifest["architecture_key"] = hashlib.sha256(text).hexdigest()
        manifest["skeleton_bytes"] = len(text)

    return rewrite(folder, repair)


def rewrite_weights(folder: Path, data: bytes) -> PackLocation:
    """Puts another graph in the place of the pack's."""
    (folder / "weights.bin").write_bytes(data)

    def repair(manifest: dict[str, Any]) -> None:
        manifest["weights_sha256"] = hashlib.sha256(data).hexdigest()
        manifest["weights_bytes"] = str(len(data))

    return rewrite(folder, repair)


def build(door: PackStore, place: PackLocation) -> torch.nn.Module:
    """The module of a pack, as a worker makes it."""
    pack = door.fetch(place)
    flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
    tree = skeleton.Skeleton(pack.skeleton)
    tree.bind(tree.views(pack.places, flat))
    return tree.module


def first_layer(tree: dict[str, Any]) -> dict[str, Any]:
    """The node of the first convolution, of a skeleton."""
    layer: dict[str, Any] = tree["root"]["children"]["model"]["children"]["0"]
    return layer

"""Skeletons of packs: descriptions of module trees, which a worker builds."""

import functools
import json
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf import json_format

from tests.fuzz import mutation
from tests.fuzz.target import Pure, Target
from tests.models import ROOT, Zoo, zoo_folder
from worker.backends.pytorch.architecture import Architecture
from worker.backends.pytorch.skeleton import LAYER_MODULES, ROOT_CLASSES
from worker.packs.manifest import tensor_places
from yolopool.errors import YolopoolError
from yolopool.v1.pack_pb2 import PackManifest

_WORDS = (
    "class", "attributes", "forward", "parameters", "buffers", "children", "tensor", "shape",
    "dtype", "tuple", "size", "dict", "data", "float32", "forward_fuse", "forward_split",
    "__class__", "_modules", "training", "nc", "end2end", "kpt_shape", "model", "0", "-1",
    *ROOT_CLASSES, *(f"{module}.Conv2d" for module in sorted(LAYER_MODULES)),
    "ultralytics.nn.modules.head.Detect", "ultralytics.nn.modules.head.Pose",
    "ultralytics.nn.modules.head.Classify", "ultralytics.nn.modules.block.TorchVision",
    "torch.nn.modules.container.Sequential", "torch.nn.modules.activation.SiLU",
)  # fmt: skip


@functools.cache
def _pack() -> tuple[bytes, PackManifest]:
    """A real one, of the demo model."""
    zoo = Zoo(zoo_folder(ROOT / ".pytest_cache" / "zoo"))
    folder = Path(zoo.pack("shapes").uri.removeprefix("file://"))
    manifest = json_format.Parse((folder / "manifest.json").read_bytes(), PackManifest())
    return (folder / "skeleton.json").read_bytes(), manifest


def _small(tree: Any, layers: int) -> Any:
    """With the first layers alone, and the head: a mutation of one byte in thousands is found."""
    model = tree["root"]["children"]["model"]
    kept = list(model["children"].items())
    model["children"] = dict((*kept[:layers], kept[-1]))
    return tree


def _seeds() -> list[bytes]:
    whole = _pack()[0]
    trees = [_small(json.loads(whole), layers) for layers in (0, 1, 3)]
    return [*(json.dumps(tree).encode() for tree in trees), whole]


def _built(data: bytes) -> str:
    architecture = Architecture(data)
    manifest = _pack()[1]
    architecture.check(manifest)
    architecture.skeleton.indices_under(architecture.module)
    if len(architecture.skeleton._shapes) == len(manifest.tensors):
        import torch

        flat = torch.zeros(manifest.weights_bytes, dtype=torch.uint8)
        architecture.skeleton.views(tensor_places(manifest), flat)
        return "views"
    return "ok"


def _changed(data: bytes, rng: Random, seeds: object) -> bytes:
    return mutation.of_json(data, rng, _WORDS)


TARGETS = {
    "skeletons": Target(
        name="skeletons",
        about="packs: descriptions of module trees",
        open=lambda folder: Pure(_built, (YolopoolError,)),
        seeds=_seeds,
        share=8,
        mutate=_changed,
        max_bytes=256 * 1024,
        examples=60,
    )
}

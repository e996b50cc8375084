"""Checkpoints as the importer's child reads them: the zip, the pickle in it, and what it describes.

In this process, without the sandbox that contains it in the product.
"""

import functools
import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from importer import archive
from importer.refusal import ImportRefused
from importer.torch_import import checkpoint, restricted_load
from tests.fuzz import mutation
from tests.fuzz.target import Target

_FILE_BYTES = 64 * 1024**2
# The smallest model of the library that has all parts of one.
_YAML = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]]] * 4 + [[-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
}
# Opcodes of pickle, and names that a file may mention.
_WORDS = (
    b"c", b"R", b"(", b"t", b"}", b"]", b")", b"\x81", b"\x85", b"\x86", b"\x87", b"\x93", b"b",
    b"q\x00", b"h\x00", b"X\x05\x00\x00\x00model", b"\x80\x02", b"\x80\x04", b"s", b"u", b"a", b"e",
    b"N.", b".", b"Q", b"P0\n", b"\x8a\x08", b"J\xff\xff\xff\x7f", b"M\xff\xff", b"K\x00", b"G",
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n",
    b"ccollections\nOrderedDict\n", b"cultralytics.nn.tasks\nDetectionModel\n",
    b"cultralytics.nn.modules.head\nDetect\n", b"ctorch.nn.modules.conv\nConv2d\n",
    b"cargparse\nNamespace\n", b"cdatetime\ndatetime\n", b"ctorch.storage\nUntypedStorage\n",
)  # fmt: skip


class Checkpoints:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "model.pt"
        torch.set_num_threads(1)

    def run(self, data: bytes) -> str:
        self._path.write_bytes(data)
        try:
            if archive.is_onnx(self._path):
                return "is ONNX"
            archive.check(self._path, _FILE_BYTES)
            restricted_load.load(self._path)
        except ImportRefused as refusal:
            return refusal.reason
        except MemoryError:
            return "IMPORT_OUT_OF_MEMORY"
        try:
            found = checkpoint.load(self._path)
        except ImportRefused as refusal:
            return f"read, {refusal.reason}"
        except Exception as error:
            # The job says so of the file: it is a library's, on objects of any kind.
            return f"read, {type(error).__name__}"
        return f"a model of {len(found.class_names)} classes"

    def close(self) -> None:
        """Nothing is open."""


def _saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@functools.cache
def _seeds() -> tuple[bytes, ...]:
    torch.manual_seed(0)
    model = DetectionModel(_YAML, verbose=False).half()
    for parameter in model.parameters():
        parameter.requires_grad = False
    state = OrderedDict(list(model.state_dict().items())[:4])
    arguments = {"imgsz": 320, "task": "detect", "data": "a.yaml", "epochs": 3}
    whole = {
        "model": model, "ema": None, "train_args": arguments, "date": "2026-01-01T00:00:00",
        "epoch": -1, "optimizer": None, "best_fitness": 0.5,
    }  # fmt: skip
    small: tuple[Any, ...] = (
        {"model": nn.Conv2d(1, 1, 1)}, state, nn.Identity(), {}, [], {"model": None},
        {"model": nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.SiLU())},
    )  # fmt: skip
    return (_saved(whole), *map(_saved, small))


def _changed(data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    """The pickle in the archive, or the archive's own list of members."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = [(info.filename, packed.read(info)) for info in packed.infolist()]
    except Exception:  # a mutated archive fails in any way
        return mutation.of_bytes(data, rng, seeds, _WORDS, len(data) + 4096)
    if not members:
        return data
    at = rng.randrange(len(members))
    if rng.random() < 0.7:
        at = next((n for n, (name, _) in enumerate(members) if name.endswith("data.pkl")), at)
        changed = mutation.of_bytes(members[at][1], rng, [pickle.dumps({})], _WORDS, 256 * 1024)
        members[at] = members[at][0], changed
    match rng.randrange(12):
        case 0:
            del members[at]
        case 1:
            members.append(members[at])
        case 2:
            name = rng.choice(
                ("constants.pkl", "version", "byteorder", "data/0", "../x", "data.pkl")
            )
            members[at] = f"archive/{name}", members[at][1]
    stream = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", packing) as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a member that is there twice is only warned of
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = packing
            packed.writestr(info, content)
    return stream.getvalue()


TARGETS = {
    "checkpoints": Target(
        name="checkpoints",
        about="checkpoints: the zip, the pickle in it, the model that it describes",
        open=Checkpoints,
        seeds=_seeds,
        share=15,
        mutate=_changed,
        words=_WORDS,
        max_bytes=1024 * 1024,
        examples=25,
    )
}

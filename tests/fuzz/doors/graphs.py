"""ONNX files as the importer's child reads them, up to the runtime and through it; and the images
for int8.

In this process, without the sandbox that contains it in the product.
"""

import functools
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from importer import class_names, pack_writer
from importer.onnx_import import calibration, encode, graph, shapes
from importer.onnx_import.graph import Input
from importer.refusal import ImportRefused
from tests.fuzz import messages, mutation
from tests.fuzz.target import Target
from tests.lying_graphs import LIES, METADATA, TRUE, Spots
from tests.unit.worker.preprocess.encoded_images import ALL
from yolopool.v1 import types_pb2

_SEED_BYTES = 48 * 1024
_MEMORY_BYTES = 2 * 1024**3
_WORDS = (
    "images", "output0", "names", "task", "stride", "imgsz", "args", "end2end", "head", "detect",
    "[320, 320]", "32", "{0: 'a'}", "['a', 'b']", "{'nms': True}", "ai.onnx", "com.microsoft",
    "t1", "t2", "t10", "batch", "height", "to", "axis", "axes", "value", "kernel_shape", "perm",
    "Conv", "Concat", "Reshape", "Slice", "Shape", "Loop", "If", "Scan", "Cast", "Resize",
    "Constant",
    "NonMaxSuppression", "ConstantOfShape", "Expand", "Tile", "Gather", "RandomNormal", "Range",
    "Einsum", "MatMul", "Squeeze", "Unsqueeze", "Transpose", "Split", "Pad", "Where", "TopK",
)  # fmt: skip
_DATA = (
    b"",
    bytes(4),
    bytes(8),
    b"\xff" * 8,
    b"\xff" * 64,
    (2**31).to_bytes(8, "little"),
    bytes(64),
)


def _order(folder: Path, artifact: Path) -> dict[str, Any]:
    return {
        "artifact": str(artifact), "sha256": "0" * 64, "settings": {}, "folder": str(folder),
        "memory_bytes": _MEMORY_BYTES, "architecture_yaml": "", "class_names": (), "renamed": {},
        "build": {"backend": "onnx", "precision": "fp32", "calibration": ""},
    }  # fmt: skip


class Graphs:
    """All that is done with a file before a runtime has it."""

    def __init__(self, folder: Path) -> None:
        self._order = _order(folder, folder / "model.onnx")

    def run(self, data: bytes) -> str:
        try:
            read = graph.read(data)
            encode._check_kind(read)
            names = encode._class_names(read, class_names.of_order(self._order))
            settings = encode._resolved(types_pb2.VersionSettings(), read)
            size = pack_writer.sides(settings)
            types = shapes.inferred(read.model, *size)
            shapes.cost(read.model.graph, types, read.input.batch or 1)
            shapes.parameters(read.model.graph)
            asked = types_pb2.VersionSettings()
            decision = encode._decided(read, types, names, size, asked, None)
        except ImportRefused as refusal:
            return refusal.reason
        except MemoryError:
            return "IMPORT_OUT_OF_MEMORY"
        except Exception as error:
            # The job says so of the file.
            return f"contained {type(error).__name__}"
        return decision.layout.value

    def close(self) -> None:
        """Nothing is open."""


class GraphRuns:
    """A whole import, with the passes that try what a graph declares."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._artifact = folder / "pack", folder / "model.onnx"
        self._folder.mkdir()

    def run(self, data: bytes) -> str:
        self._artifact.write_bytes(data)
        order = _order(self._folder, self._artifact)
        try:
            encode.encode(order, self._artifact, self._folder, [], lambda share, step: None)
        except ImportRefused as refusal:
            return refusal.reason
        except MemoryError:
            return "IMPORT_OUT_OF_MEMORY"
        except Exception as error:
            return f"contained {type(error).__name__}"
        return "a pack"

    def close(self) -> None:
        """Nothing is open."""


@functools.cache
def _seeds() -> tuple[bytes, ...]:
    made = [spots.model().SerializeToString() for spots in (*TRUE.values(), *LIES.values())]
    return tuple(data for data in made if len(data) <= _SEED_BYTES)


def _tiny() -> tuple[bytes, ...]:
    """Of 64 pixels, since each import is some dozen passes."""
    said = {**METADATA, "imgsz": "[64, 64]"}
    kinds = {1: TensorProto.FLOAT, 2: TensorProto.UINT8, 4: TensorProto.FLOAT16}
    return tuple(
        Spots(size=(batch, 3, 64, 64), declared=(batch, 7, 84), said=said, dtype=kind)
        .model()
        .SerializeToString()
        for batch, kind in kinds.items()
    )


def _changed(data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    kind: type[Message] = onnx.ModelProto
    model = messages.parsed(kind, data)
    if model is None:
        return mutation.of_bytes(data, rng, seeds, (), _SEED_BYTES)
    for _ in range(rng.randint(1, 3)):
        messages.change(model, rng, _WORDS, _DATA)
    return model.SerializeToString()


# --- images for int8 ------------------------------------------------------------------------------


class Calibration:
    """A zip of images; all of them are read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "images.zip"

    def run(self, data: bytes) -> str:
        self._path.write_bytes(data)
        image = Input("images", "uint8", 1, 64, 96)
        try:
            images = calibration.Images(self._path, image, (64, 96), lambda share: None)
            return f"{min(9, sum(1 for _ in images))} images"
        except ImportRefused as refusal:
            return refusal.reason

    def close(self) -> None:
        """Nothing is open."""


def _zips() -> list[bytes]:
    chosen = [("a.jpg", ALL["jpeg grey"]), ("b/c.png", ALL["png 1 bit"]), ("d.jpg", ALL["jpeg"])]
    return [_zip(chosen), _zip(chosen[:1]), _zip([]), _zip([("x", b"text")]), _zip(chosen, True)]


def _zip(members: Sequence[tuple[str, bytes]], packed: bool = False) -> bytes:
    stream = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, kind)
    return stream.getvalue()


TARGETS = {
    one.name: one
    for one in (
        Target(
            name="graphs",
            about="ONNX files, up to the runtime",
            open=Graphs,
            seeds=_seeds,
            share=40,
            mutate=_changed,
            max_bytes=64 * 1024,
            examples=60,
        ),
        Target(
            name="graph-runs",
            about="ONNX files, imported whole: the runtime tries what they declare",
            open=GraphRuns,
            seeds=_tiny,
            share=5,
            mutate=_changed,
            max_bytes=64 * 1024,
            examples=3,
            slow_s=20.0,  # a graph may be of thousands of pixels, and is run some dozen times
        ),
        Target(
            name="calibration",
            about="zips of images for int8",
            open=Calibration,
            seeds=_zips,
            share=130,
            words=(
                b"PK\x03\x04",
                b"PK\x01\x02",
                b"PK\x05\x06",
                b"PK\x06\x06",
                b"\xff\xd8",
                b"IDAT",
            ),
            max_bytes=32 * 1024,
        ),
    )
}

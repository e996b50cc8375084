"""The rules of a pack's manifest, checked before a worker uses any byte of the pack.

Pure. A digest proves that a pack is the intended one, not that it is well made. So every number
that later becomes an address, a size or a loop bound is checked here.
"""

import re
from collections.abc import Sequence
from math import isfinite, prod
from typing import NamedTuple

from yolopool.errors import PackInvalid
from yolopool.graphs import pictures, self_test
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import PackManifest, SelfTest, TensorEntry
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    HEAD_MODE_UNSPECIFIED,
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PAIR,
    OUTPUT_LAYOUT_PLAIN,
    OUTPUT_LAYOUT_UNSPECIFIED,
)
from yolopool.vocabulary import MAX_DETECTIONS

FORMAT = 1
TORCH = ("", "torch")  # empty in packs that were made when there was no other backend
GRAPHS = {  # backends that run ONNX graphs, and their precisions; empty is fp32
    "onnx": ("", "fp32", "int8"),
    "openvino": ("", "fp32", "bf16", "int8"),
    "tensorrt": ("", "fp32"),
}
TASKS = ("detect", "segment", "pose", "obb", "classify")
ALIGNMENT_BYTES = 256
MAX_MANIFEST_BYTES = 32 * 1024**2
MAX_SKELETON_BYTES = 32 * 1024**2
MAX_WEIGHTS_BYTES = 64 * 1024**3
ITEM_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint8": 1,
    "bool": 1,
}

# How many outputs each layout has.
_OUTPUTS = {
    OUTPUT_LAYOUT_OBJECTNESS: 1,
    OUTPUT_LAYOUT_PLAIN: 1,
    OUTPUT_LAYOUT_END_TO_END: 1,
    OUTPUT_LAYOUT_PAIR: 2,
    OUTPUT_LAYOUT_UNSPECIFIED: 1,
}
# The layouts that a graph may have, by task.
_LAYOUTS = {
    "detect": (
        OUTPUT_LAYOUT_OBJECTNESS,
        OUTPUT_LAYOUT_PLAIN,
        OUTPUT_LAYOUT_END_TO_END,
        OUTPUT_LAYOUT_PAIR,
    ),
    "segment": (OUTPUT_LAYOUT_PLAIN,),
    "pose": (OUTPUT_LAYOUT_PLAIN,),
    "obb": (OUTPUT_LAYOUT_PLAIN,),
    "classify": (OUTPUT_LAYOUT_UNSPECIFIED,),
}
_MAX_TENSORS = 100_000
_MAX_DIMENSIONS = 8
_MAX_CLASSES = 100_000
_MAX_NAME_LENGTH = 1_000
_MAX_ACTIVATION_BYTES = 2**40
_MAX_KEYPOINTS, _MAX_MASK_COEFFICIENTS = 500, 1_024
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_TENSOR_NAME = re.compile(r"\w+(?:\.\w+)*", re.ASCII)


class TensorPlace(NamedTuple):
    """The place of a tensor in the weights: sizes and strides in elements, offset in bytes."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def tensor_places(manifest: PackManifest) -> tuple[TensorPlace, ...]:
    """The tensors of a checked manifest in plain Python, made once for all loads of the pack."""
    return tuple(
        TensorPlace(entry.dtype, tuple(entry.shape), tuple(entry.strides), entry.offset)
        for entry in manifest.tensors
    )


def check_digest(digest: str, what: str) -> str:
    """Returns the lower-case hexadecimal SHA-256, or raises PackInvalid."""
    if not _HEX_DIGEST.fullmatch(digest):
        raise PackInvalid(f"{what} {digest[:80]!r} is no SHA-256 in lower-case hexadecimal")
    return digest


def channels_of(manifest: PackManifest) -> int:
    """How many channels the images of a model have."""
    return manifest.channels or 3


def check_manifest(manifest: PackManifest) -> None:
    """Raises PackInvalid, naming the field and the rule that it breaks."""
    _require(
        manifest.format == FORMAT,
        f"its format is {manifest.format}, this release reads {FORMAT}",
        "import the model again with an importer of this release",
    )
    check_digest(manifest.architecture_key, "architecture_key")
    check_digest(manifest.weights_sha256, "weights_sha256")
    _require(manifest.task in TASKS, f"its task {manifest.task[:40]!r} is none of {TASKS}")
    _check_head(manifest)
    _require(8 <= manifest.stride <= 1024, f"stride {manifest.stride} is not within 8..1024")
    _require(
        1 <= len(manifest.class_names) <= _MAX_CLASSES,
        f"{len(manifest.class_names)} class names are not within 1..{_MAX_CLASSES}",
    )
    _require(
        all(len(name) <= _MAX_NAME_LENGTH for name in manifest.class_names),
        f"a class name is longer than {_MAX_NAME_LENGTH} characters",
    )
    _require(
        0 < manifest.activation_bytes_per_megapixel <= _MAX_ACTIVATION_BYTES,
        f"activation_bytes_per_megapixel {manifest.activation_bytes_per_megapixel} is not sane",
    )
    _require(
        0 < manifest.skeleton_bytes <= MAX_SKELETON_BYTES,
        f"skeleton_bytes {manifest.skeleton_bytes} is not within 1..{MAX_SKELETON_BYTES}",
    )
    _require(
        0 < manifest.weights_bytes <= MAX_WEIGHTS_BYTES,
        f"weights_bytes {manifest.weights_bytes} is not within 1..{MAX_WEIGHTS_BYTES}",
    )
    _check_settings(manifest.settings)
    _require(
        channels_of(manifest) in (1, 3),
        f"its images have {manifest.channels} channels, this release takes 1 or 3",
        "serve it by a newer release",
    )
    _require(
        manifest.backend in (*TORCH, *GRAPHS), f"its backend {manifest.backend[:40]!r} is not known"
    )
    of_graph = manifest.backend in GRAPHS
    _require(
        manifest.HasField("onnx") == of_graph,
        f"it does not say what its backend {manifest.backend or 'torch'} needs",
    )
    _require(
        manifest.precision in GRAPHS.get(manifest.backend, ("",)),
        f"its precision {manifest.precision[:40]!r} is none of {manifest.backend or 'torch'}",
    )
    if of_graph:
        _check_onnx(manifest)
    else:
        _check_tensors(manifest.tensors, manifest.weights_bytes)


def _check_head(manifest: PackManifest) -> None:
    task, head = manifest.task, manifest.head
    _require(
        (manifest.head_mode == HEAD_MODE_UNSPECIFIED) == (task == "classify"),
        f"head_mode is {manifest.head_mode} for the task {task}",
    )
    counts = (head.keypoints, head.keypoint_values, head.mask_coefficients, head.angles)
    if task == "pose":
        holds = 1 <= head.keypoints <= _MAX_KEYPOINTS and head.keypoint_values in (2, 3)
        holds &= not any(counts[2:])
    elif task == "segment":
        holds = counts == (0, 0, head.mask_coefficients, 0)
        holds &= 1 <= head.mask_coefficients <= _MAX_MASK_COEFFICIENTS
    else:
        holds = counts == (0, 0, 0, 1 if task == "obb" else 0)
    _require(holds, f"head attributes {counts} do not fit the task {task}")


def _check_settings(settings: types_pb2.VersionSettings) -> None:
    _require(
        32 <= settings.image_size <= 4096, f"image_size {settings.image_size} is not in 32..4096"
    )
    sizes = settings.image_sizes
    _require(len(sizes) <= 16, f"{len(sizes)} image_sizes, not <= 16")
    for size in sizes:
        _require(32 <= size <= 4096, f"one of image_sizes, {size}, is not in 32..4096")
    rectangle = settings.image_height, settings.image_width
    _require(
        rectangle == (0, 0)
        or (max(rectangle) == settings.image_size and min(rectangle) >= 32 and not sizes),
        f"its rectangle {rectangle} does not fit its image_size {settings.image_size}",
    )
    for name in ("confidence", "iou", "max_detections"):
        _require(settings.HasField(name), f"settings.{name} is not resolved")
    # Written so that NaN fails too.
    _require(0 <= settings.confidence <= 1, f"confidence {settings.confidence} is not in 0..1")
    _require(0 <= settings.iou <= 1, f"iou {settings.iou} is not in 0..1")
    _require(
        1 <= settings.max_detections <= MAX_DETECTIONS,
        f"max_detections {settings.max_detections} is not in 1..{MAX_DETECTIONS}",
    )
    _require(
        settings.shape_policy in (types_pb2.SHAPE_POLICY_RECT, types_pb2.SHAPE_POLICY_SQUARE),
        "settings.shape_policy is not resolved",
    )


def _check_onnx(manifest: PackManifest) -> None:
    graph, end_to_end = manifest.onnx, manifest.onnx.layout == OUTPUT_LAYOUT_END_TO_END
    _require(not manifest.tensors, "it has an ONNX graph and tensors too")
    _require(graph.dtype in ("float32", "float16", "uint8"), "its input has an unknown dtype")
    _require(0 < graph.scale <= 1, f"its scale {graph.scale} is not within 0..1")
    _require(
        graph.layout in _LAYOUTS[manifest.task],
        f"its layout {graph.layout} is none of {manifest.task}",
    )
    outputs = _OUTPUTS[graph.layout] + (manifest.task == "segment")  # with prototypes
    _require(
        len(graph.outputs) == outputs and all(output.name for output in graph.outputs),
        f"{len(graph.outputs)} outputs do not fit its layout",
    )
    _require(
        end_to_end == (manifest.head_mode == HEAD_MODE_END_TO_END),
        "its head_mode does not fit its layout",
    )
    settings, size = manifest.settings, manifest.settings.image_size
    sides = settings.image_height or size, settings.image_width or size
    _require(
        (graph.height, graph.width) in ((0, 0), sides),
        f"its graph takes {graph.width}x{graph.height} pixels, its settings say "
        f"{sides[1]}x{sides[0]}",
    )
    _require(
        not graph.height or set(settings.image_sizes) <= {size},
        f"its graph takes {size} pixels alone, its image_sizes have others",
    )
    _require(
        not graph.height or settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE,
        "its graph takes one size, its shape policy is not square",
    )
    _check_self_test(manifest.self_test)


def _check_self_test(test: SelfTest) -> None:
    sides = (test.height, test.width)
    holds = test.scene <= pictures.DARK and (
        sides == (0, 0) or 32 <= min(sides) <= max(sides) <= 4096
    )
    holds &= len(test.rows) <= self_test.ROWS * self_test.NUMBERS
    holds &= len(test.rows) % self_test.NUMBERS == 0 and all(map(isfinite, test.rows))
    _require(holds, "its self-test is not sane")


def _check_tensors(tensors: Sequence[TensorEntry], weights_bytes: int) -> None:
    _require(
        1 <= len(tensors) <= _MAX_TENSORS, f"{len(tensors)} tensors are not in 1..{_MAX_TENSORS}"
    )
    names = {tensor.name for tensor in tensors}
    _require(len(names) == len(tensors), "two tensors have one name")
    end, before = 0, "the beginning"
    for tensor in sorted(tensors, key=lambda entry: entry.offset):
        size = _checked_size(tensor, weights_bytes)
        _require(tensor.offset >= end, f"tensor {tensor.name} overlaps {before}")
        end, before = tensor.offset + size, tensor.name
    _require(end <= weights_bytes, f"tensor {before} ends beyond the weights")


def _checked_size(tensor: TensorEntry, weights_bytes: int) -> int:
    """The bytes of one entry, which must be dense: packed in some order of its dimensions."""
    name = tensor.name
    _require(
        len(name) <= _MAX_NAME_LENGTH and _TENSOR_NAME.fullmatch(name) is not None,
        f"{name[:80]!r} is no tensor name",
    )
    _require(tensor.dtype in ITEM_BYTES, f"tensor {name} has unknown dtype {tensor.dtype[:40]!r}")
    _require(
        len(tensor.shape) == len(tensor.strides) <= _MAX_DIMENSIONS,
        f"tensor {name} has {len(tensor.shape)} sizes and {len(tensor.strides)} strides",
    )
    _require(
        tensor.offset % ALIGNMENT_BYTES == 0 and tensor.offset <= weights_bytes,
        f"tensor {name} begins at {tensor.offset}: not a multiple of {ALIGNMENT_BYTES} inside",
    )
    _require(
        all(size <= weights_bytes for size in (*tensor.shape, *tensor.strides)),
        f"tensor {name} has sizes or strides beyond the weights",
    )
    expected = 1
    for stride, size in sorted(zip(tensor.strides, tensor.shape, strict=True)):
        if size > 1 and 0 not in tensor.shape:
            _require(stride == expected, f"tensor {name} is not dense: stride {stride}")
            expected *= size
    size = prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
    _require(size <= weights_bytes - tensor.offset, f"tensor {name} ends beyond the weights")
    return size


def _require(
    holds: bool, wrong: str, remedy: str = "import the model again; the pack is damaged or forged"
) -> None:
    if not holds:
        raise PackInvalid(f"the pack is refused: {wrong}: {remedy}")

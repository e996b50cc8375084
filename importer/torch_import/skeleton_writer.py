"""Encodes a module tree as plain JSON and one flat block of bytes.

The reader is worker.backends.pytorch.skeleton, which refuses what is not written like this. Weights
keep their strides, so that a layout chosen here (channels last) costs nothing at a load.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from importer.refusal import UNSUPPORTED, ImportRefused
from yolopool.v1.pack_pb2 import TensorEntry

FORMAT = 1
ALIGNMENT_BYTES = 256
ROOT_CLASSES = tuple(
    f"ultralytics.nn.tasks.{name}Model"
    for name in ("Detection", "Segmentation", "Pose", "OBB", "Classification")
)
# The classes and limits of the reader; a test keeps the two equal. A pack that no worker accepts
# must fail here, where the user sees the error.
LAYER_MODULES = frozenset(
    {f"ultralytics.nn.modules.{name}" for name in ("activation", "block", "conv", "head")}
    | {
        f"torch.nn.modules.{name}"
        for name in (
            "activation",
            "batchnorm",
            "container",
            "conv",
            "dropout",
            "flatten",
            "linear",
            "normalization",
            "padding",
            "pixelshuffle",
            "pooling",
            "upsampling",
        )
    }
)
MAX_MODULES, MAX_DEPTH = 20_000, 40
_MAX_INLINE_NUMBERS = 4_096
_DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.bool: "bool",
}
_INTERNALS = frozenset(nn.Module().__dict__)
# The attributes of a model that are needed to run it. Others, such as names and training arguments,
# differ between models that share an architecture.
_ROOT_ATTRIBUTES = frozenset({"save", "stride", "inplace", "nc", "task"})
# The head's cache of its last input shape, and attributes for the library's profiler.
_UNUSED = frozenset({"anchors", "strides", "shape", "type", "np"})


@dataclass(slots=True)
class Skeleton:
    """A module tree as JSON, with the tensors it indexes and where each lies in weights.bin."""

    text: bytes
    entries: list[TensorEntry]
    tensors: list[torch.Tensor]
    weights_bytes: int

    @property
    def parameters(self) -> int:
        """The number of trained values: all tensors except buffers."""
        pairs = zip(self.entries, self.tensors, strict=True)
        return sum(tensor.numel() for entry, tensor in pairs if not entry.is_buffer)

    def parts(self) -> Iterator[bytes]:
        """The bytes of weights.bin: every tensor at its offset, with its strides."""
        written = 0
        for entry, tensor in zip(self.entries, self.tensors, strict=True):
            yield bytes(entry.offset - written)
            yield _raw_bytes(tensor)
            written = entry.offset + tensor.numel() * tensor.element_size()


@dataclass(slots=True)
class _Weights:
    entries: list[TensorEntry] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    known: dict[tuple[Any, ...], int] = field(default_factory=dict)
    end_bytes: int = 0

    def add(self, name: str, tensor: torch.Tensor, is_buffer: bool) -> int:
        """Adds a tensor and returns its index; a tensor that two modules share is stored once."""
        dense = tensor.detach()
        if not _is_dense(dense):
            dense = dense.contiguous()
        key = (dense.data_ptr(), dense.dtype, dense.shape, dense.stride())
        if dense.numel() and key in self.known:
            return self.known[key]
        if dense.dtype not in _DTYPES:
            raise ImportRefused(
                UNSUPPORTED, f"{name} is of type {dense.dtype}: save the model in fp32 or fp16"
            )
        offset = -(-self.end_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.entries.append(
            TensorEntry(
                name=name,
                dtype=_DTYPES[dense.dtype],
                shape=dense.shape,
                strides=dense.stride(),
                offset=offset,
                is_buffer=is_buffer,
            )
        )
        self.tensors.append(dense)
        self.end_bytes = offset + dense.numel() * dense.element_size()
        self.known[key] = len(self.tensors) - 1
        return len(self.tensors) - 1


def write_skeleton(model: nn.Module) -> Skeleton:
    """Encodes a fused model in eval mode. Raises ImportRefused for an attribute that is code."""
    for path, module in model.named_modules(remove_duplicate=False):
        _check_layer(module, path)
    modules = sum(1 for _ in model.named_modules(remove_duplicate=False))
    if modules > MAX_MODULES:
        raise ImportRefused(
            UNSUPPORTED, f"the model has {modules} modules, {MAX_MODULES} are served: make it less"
        )
    weights = _Weights()
    root = _node(model, "", weights, _ROOT_ATTRIBUTES)
    text = json.dumps({"format": FORMAT, "root": root}, separators=(",", ":"))
    return Skeleton(text.encode(), weights.entries, weights.tensors, weights.end_bytes)


def _check_layer(module: nn.Module, path: str) -> None:
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    known = name in ROOT_CLASSES if not path else type(module).__module__ in LAYER_MODULES
    if not known or path.count(".") >= MAX_DEPTH:
        raise ImportRefused(
            UNSUPPORTED,
            f"{path or 'the model'} is a {name}, which is not served there: build the model of the "
            "library's convolutional layers, without transformers",
        )


def _node(
    module: nn.Module, path: str, weights: _Weights, only: frozenset[str] | None = None
) -> dict[str, Any]:
    state = module.__dict__
    attributes, node = {}, {"class": f"{type(module).__module__}.{type(module).__qualname__}"}
    # Attributes are sorted, so that their order does not matter; children keep the order of layers.
    for name, value in sorted(state.items()):
        if name in _INTERNALS or name in _UNUSED or (only is not None and name not in only):
            continue
        if name == "forward":
            node["forward"] = _forward(module, value, path)
        else:
            attributes[name] = _value(value, f"{path}.{name}")
    filled: dict[str, Any] = {
        "attributes": attributes,
        "parameters": _tensors(state["_parameters"], path, weights, is_buffer=False),
        "buffers": _tensors(state["_buffers"], path, weights, is_buffer=True),
        "children": {
            name: None if child is None else _node(child, _join(path, name), weights)
            for name, child in state["_modules"].items()
        },
    }
    return {**node, **{name: value for name, value in filled.items() if value}}


def _tensors(
    tensors: Mapping[str, torch.Tensor | None], path: str, weights: _Weights, is_buffer: bool
) -> dict[str, Any]:
    return {
        name: None
        if tensor is None
        else {
            "tensor": weights.add(_join(path, name), tensor, is_buffer),
            "shape": list(tensor.shape),
        }
        for name, tensor in tensors.items()
    }


def _forward(module: nn.Module, value: Any, path: str) -> str:
    """Fused layers have `forward = forward_fuse`, a method of their class; stored by its name."""
    name = getattr(value, "__name__", "")
    if getattr(value, "__self__", None) is not module or not name.startswith("forward_"):
        raise _unsupported(f"{path}.forward", value)
    return str(name)


def _value(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, torch.Size):
        return {"size": list(value)}
    if isinstance(value, list | tuple):
        items = [_value(item, where) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        return {"dict": [[key, _value(item, where)] for key, item in value.items()]}
    if isinstance(value, torch.dtype) and value in _DTYPES:
        return {"dtype": _DTYPES[value]}
    if isinstance(value, torch.Tensor) and value.dtype in _DTYPES and _is_small(value):
        data = [_value(number, where) for number in value.detach().flatten().tolist()]
        shape = list(value.shape)
        return {"tensor": {"dtype": _DTYPES[value.dtype], "shape": shape, "data": data}}
    raise _unsupported(where, value)


def _unsupported(where: str, value: Any) -> ImportRefused:
    return ImportRefused(
        UNSUPPORTED,
        f"{where.lstrip('.')} is of type {type(value).__name__}, which a pack can't hold: save the "
        "model as the library's own training does, without hooks or layers of your own",
    )


def _is_small(tensor: torch.Tensor) -> bool:
    return tensor.numel() <= _MAX_INLINE_NUMBERS


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the tensor is packed without gaps or overlap in some order of its dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _raw_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a dense tensor in memory order."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

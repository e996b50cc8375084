"""Builds a module tree from a pack's skeleton: no constructor, no pickle, no eval.

Only classes of a short list of modules, only plain attributes, and tensors bound as views into
one flat buffer. The writer of the format is importer.skeleton_writer; a test keeps them equal.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from worker.pack_rules import ITEM_BYTES
from yolopool.errors import PackInvalid
from yolopool.v1.pack_pb2 import TensorEntry

FORMAT = 1
ROOT_CLASS = "ultralytics.nn.tasks.DetectionModel"
# Where layers live. Importing one of these runs no code but the libraries' own.
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
# Classes of those modules that do more than compute: this one loads models by name.
_REFUSED = frozenset({"ultralytics.nn.modules.block.TorchVision"})
_DTYPES = {name: getattr(torch, name) for name in ITEM_BYTES}
_MAX_DEPTH = 40
_MAX_MODULES = 20_000
_MAX_INLINE_NUMBERS = 4_096
_NODE_FIELDS = {"class", "attributes", "forward", "parameters", "buffers", "children"}
# What nn.Module itself keeps in __dict__: never set from a file.
_INTERNALS = frozenset(nn.Module().__dict__) - {"training"}


def bind_views(entries: Sequence[TensorEntry], flat: torch.Tensor) -> list[torch.Tensor]:
    """One view into `flat` (uint8, all weights of a checked manifest) an entry; no copy."""
    views = []
    for entry in entries:
        size = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
        typed = flat[entry.offset : entry.offset + size].view(_DTYPES[entry.dtype])
        views.append(typed.as_strided(tuple(entry.shape), tuple(entry.strides)))
    return views


def build(skeleton: Any, tensors: Sequence[torch.Tensor]) -> nn.Module:
    """The module of a skeleton in eval mode with these tensors bound; PackInvalid if it is not
    made as the writer makes them.
    """
    if not isinstance(skeleton, dict) or set(skeleton) != {"format", "root"}:
        raise _refusal("its top level is not {format, root}")
    if skeleton["format"] != FORMAT:
        raise _refusal(f"its format is {skeleton['format']!r}, this release reads {FORMAT}")
    builder = _Builder(tensors)
    try:
        root = builder.module(skeleton["root"], (ROOT_CLASS,), 0)
    except RecursionError as error:
        raise _refusal("it is nested too deeply") from error
    if len(builder.bound) != len(tensors):
        raise _refusal(f"it uses {len(builder.bound)} of {len(tensors)} tensors")
    return root


class _Builder:
    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = tensors
        self.bound: set[int] = set()
        self.modules = 0

    def module(self, node: Any, only: tuple[str, ...] | None, depth: int) -> nn.Module:
        self.modules += 1
        if depth > _MAX_DEPTH or self.modules > _MAX_MODULES:
            raise _refusal("it has too many modules or levels")
        fields = _mapping(node, "a module")
        if not set(fields) <= _NODE_FIELDS:
            raise _refusal(f"a module has unknown fields {sorted(set(fields) - _NODE_FIELDS)}")
        cls = _layer_class(fields.get("class"), only)
        module: nn.Module = cls.__new__(cls)
        nn.Module.__init__(module)
        # Written to __dict__, so that no setter or property of the class runs.
        state = module.__dict__
        for name, value in _mapping(fields.get("attributes", {}), "attributes").items():
            state[_attribute_name(name, cls)] = _value(value, 0)
        if "forward" in fields:
            state["forward"] = _method(cls, fields["forward"]).__get__(module)
        for name, entry in _mapping(fields.get("parameters", {}), "parameters").items():
            tensor = self.tensor(entry)
            parameter = None if tensor is None else nn.Parameter(tensor, requires_grad=False)
            state["_parameters"][_attribute_name(name, cls)] = parameter
        for name, entry in _mapping(fields.get("buffers", {}), "buffers").items():
            state["_buffers"][_attribute_name(name, cls)] = self.tensor(entry)
        for name, child in _mapping(fields.get("children", {}), "children").items():
            built = None if child is None else self.module(child, None, depth + 1)
            state["_modules"][_child_name(name)] = built
        state["training"] = False
        return module

    def tensor(self, entry: Any) -> torch.Tensor | None:
        if entry is None:
            return None
        fields = _mapping(entry, "a tensor")
        index = fields.get("tensor")
        if type(index) is not int or not 0 <= index < len(self.tensors):
            raise _refusal(f"it names tensor {index!r} of {len(self.tensors)}")
        tensor = self.tensors[index]
        if fields.get("shape") != list(tensor.shape):
            raise _refusal(
                f"tensor {index} is {list(tensor.shape)} in the manifest, not {fields.get('shape')}"
            )
        self.bound.add(index)
        return tensor


def _layer_class(path: Any, only: tuple[str, ...] | None) -> type[nn.Module]:
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    allowed = path in only if only else module_name in LAYER_MODULES and path not in _REFUSED
    if not allowed or not name.isidentifier():
        raise _refusal(f"class {str(path)[:120]!r} is not allowed there")
    cls = getattr(importlib.import_module(module_name), name, None)
    # A name that a module only imported is not its class: the list would mean more than it says.
    if not isinstance(cls, type) or not issubclass(cls, nn.Module) or cls.__module__ != module_name:
        raise _refusal(f"{path} is no layer")
    return cls


def _method(cls: type[nn.Module], name: Any) -> Callable[..., Any]:
    method: Callable[..., Any] | None = None
    if isinstance(name, str) and name.startswith("forward_"):
        method = getattr(cls, name, None)
    if not inspect.isfunction(method):
        raise _refusal(f"{cls.__name__} has no method {str(name)[:80]!r} to be its forward")
    return method


def _attribute_name(name: str, cls: type[nn.Module]) -> str:
    # A plain value in the place of a method would only break the model, but has no honest use.
    shadowed = callable(getattr(cls, name, None)) and not isinstance(getattr(cls, name), nn.Module)
    if not name.isidentifier() or name.startswith("__") or name in _INTERNALS or shadowed:
        raise _refusal(f"attribute {name[:80]!r} of {cls.__name__} is not allowed")
    return name


def _child_name(name: str) -> str:
    if not name.replace("_", "a").isalnum():
        raise _refusal(f"{name[:80]!r} is no name of a child module")
    return name


def _value(value: Any, depth: int) -> Any:
    """Decodes a plain attribute; what JSON lacks is an object with one key that names the kind."""
    if depth > _MAX_DEPTH:
        raise _refusal("an attribute is nested too deeply")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_value(item, depth + 1) for item in value]
    if isinstance(value, dict) and len(value) == 1:
        ((kind, inside),) = value.items()
        if kind == "tensor":
            return _inline_tensor(inside)
        if kind == "dtype" and isinstance(inside, str) and inside in _DTYPES:
            return _DTYPES[inside]
        if kind == "dict" and isinstance(inside, list):
            pairs = [_pair(pair, depth + 1) for pair in inside]
            return dict(pairs)
        made = {"tuple": tuple, "size": torch.Size}.get(kind)
        if made is not None and isinstance(inside, list):
            items = [_value(item, depth + 1) for item in inside]
            if kind == "tuple" or all(type(item) is int for item in items):
                return made(items)
    raise _refusal(f"an attribute has a value of unknown kind: {str(value)[:80]}")


def _pair(pair: Any, depth: int) -> tuple[Any, Any]:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str | int):
        raise _refusal("a dictionary has an entry that is no pair of a plain key and a value")
    return pair[0], _value(pair[1], depth)


def _inline_tensor(inside: Any) -> torch.Tensor:
    fields = _mapping(inside, "a small tensor")
    dtype, shape, data = fields.get("dtype"), fields.get("shape"), fields.get("data")
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(data, list)):
        raise _refusal("a small tensor among the attributes lacks dtype, shape or data")
    plain = (
        dtype in _DTYPES
        and all(type(size) is int and size >= 0 for size in shape)
        and all(isinstance(number, bool | int | float) for number in data)
    )
    if not plain or len(data) > _MAX_INLINE_NUMBERS or len(data) != math.prod(shape):
        raise _refusal("a small tensor among the attributes is malformed or too large")
    try:
        return torch.tensor(data, dtype=_DTYPES[dtype]).reshape(shape)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise _refusal(f"a small tensor among the attributes is malformed: {error}") from error


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refusal(f"{what} is no object")
    return value


def _refusal(wrong: str) -> PackInvalid:
    return PackInvalid(
        f"the pack's skeleton is refused: {wrong}: import the model again; the pack is damaged, "
        "forged, or of another release"
    )

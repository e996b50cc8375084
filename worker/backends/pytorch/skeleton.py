"""Builds a module tree from a pack's skeleton, without constructors, pickle or eval.

It uses only classes of a short list of modules, plain attributes, and tensors that are views into
one flat buffer. importer.torch_import.skeleton_writer writes the format; a test keeps them equal.
"""

import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from worker.packs.manifest import ITEM_BYTES, TensorPlace
from yolopool.errors import PackInvalid

FORMAT = 1
ROOT_CLASSES = tuple(
    f"ultralytics.nn.tasks.{name}Model"
    for name in ("Detection", "Segmentation", "Pose", "OBB", "Classification")
)
# Modules that define layers. Importing one runs only the libraries' own code.
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
_MAX_TENSORS = 100_000
_MAX_INLINE_NUMBERS = 4_096
_NODE_FIELDS = {"class", "attributes", "forward", "parameters", "buffers", "children"}
# What nn.Module itself keeps in __dict__, which no file may set.
_INTERNALS = frozenset(nn.Module().__dict__) - {"training"}


class Skeleton:
    """The module tree of one architecture, in eval mode and without weights of its own.

    Built once for all models that share it. `bind` puts one model's tensors into it, in some
    microseconds of dictionary writes. Used on one thread, as all of a backend.
    """

    def __init__(self, text: bytes) -> None:
        """Builds the tree from skeleton.json. Raises PackInvalid for any other format."""
        root = _parse(text)
        if not isinstance(root, dict) or set(root) != {"format", "root"}:
            raise _refusal("its top level is not {format, root}")
        if root["format"] != FORMAT:
            raise _refusal(f"its format is {root['format']!r}, this release reads {FORMAT}")
        builder = _Builder()
        try:
            self.module = builder.module(root["root"], ROOT_CLASSES, 0)
        except RecursionError as error:
            raise _refusal("it is nested too deeply") from error
        self._places = tuple(builder.places)
        self._shapes = builder.shapes
        if set(self._shapes) != set(range(len(self._shapes))):
            raise _refusal("it does not number its tensors from 0 without gaps")

    def views(self, places: Sequence[TensorPlace], flat: torch.Tensor) -> list[torch.Tensor]:
        """One view for each tensor into `flat` (uint8, all weights of a checked manifest); no copy.

        Raises PackInvalid if manifest and skeleton do not have the same tensors.
        """
        if len(places) != len(self._shapes):
            raise _refusal(f"it uses {len(self._shapes)} of {len(places)} tensors")
        typed: dict[str, torch.Tensor] = {}
        views = []
        for index, (dtype, shape, strides, offset) in enumerate(places):
            if shape != self._shapes[index]:
                raise _refusal(
                    f"tensor {index} is {list(shape)} in the manifest, not {self._shapes[index]}"
                )
            size = ITEM_BYTES[dtype]
            if dtype not in typed:
                typed[dtype] = flat[: len(flat) // size * size].view(_DTYPES[dtype])
            views.append(typed[dtype].as_strided(shape, strides, offset // size))
        return views

    def indices_under(self, module: nn.Module) -> frozenset[int]:
        """The numbers of the tensors in a part of the tree."""
        inside = {
            id(store)
            for part in module.modules()
            for store in (part.__dict__["_parameters"], part.__dict__["_buffers"])
        }
        return frozenset(index for store, _, index in self._places if id(store) in inside)

    def bind(self, tensors: Sequence[torch.Tensor]) -> None:
        """Makes `tensors`, in the order of `views`, the weights of the tree."""
        for store, name, index in self._places:
            store[name] = tensors[index]

    def unbind(self) -> None:
        """Removes the bound tensors, so that their memory can be freed."""
        for store, name, _ in self._places:
            store[name] = None


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"it is not JSON ({error})") from error


class _Builder:
    """Makes modules from nodes, and notes where each numbered tensor belongs."""

    def __init__(self) -> None:
        self.places: list[tuple[dict[str, Any], str, int]] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
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
        for kind in ("parameters", "buffers"):
            for name, entry in _mapping(fields.get(kind, {}), kind).items():
                self.tensor(state[f"_{kind}"], _attribute_name(name, cls), entry)
        for name, child in _mapping(fields.get("children", {}), "children").items():
            built = None if child is None else self.module(child, None, depth + 1)
            state["_modules"][_child_name(name)] = built
        state["training"] = False
        return module

    def tensor(self, store: dict[str, Any], name: str, entry: Any) -> None:
        store[name] = None
        if entry is None:
            return
        fields = _mapping(entry, "a tensor")
        index, shape = fields.get("tensor"), fields.get("shape")
        if type(index) is not int or not 0 <= index < _MAX_TENSORS:
            raise _refusal(f"it names tensor {str(index)[:40]!r}")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise _refusal(f"tensor {index} has no shape")
        if self.shapes.setdefault(index, tuple(shape)) != tuple(shape):
            raise _refusal(f"tensor {index} has two shapes")
        self.places.append((store, name, index))


def _layer_class(path: Any, only: tuple[str, ...] | None) -> type[nn.Module]:
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    allowed = path in only if only else module_name in LAYER_MODULES and path not in _REFUSED
    if not allowed or not name.isidentifier():
        raise _refusal(f"class {str(path)[:120]!r} is not allowed there")
    cls = getattr(importlib.import_module(module_name), name, None)
    # A class that the module only imports is refused: the list allows only what it names.
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
    # A plain value in place of a method would only break the model, but has no honest use.
    shadowed = callable(getattr(cls, name, None)) and not isinstance(getattr(cls, name), nn.Module)
    if not name.isidentifier() or name.startswith("__") or name in _INTERNALS or shadowed:
        raise _refusal(f"attribute {name[:80]!r} of {cls.__name__} is not allowed")
    return name


def _child_name(name: str) -> str:
    if not name.replace("_", "a").isalnum():
        raise _refusal(f"{name[:80]!r} is no name of a child module")
    return name


def _value(value: Any, depth: int) -> Any:
    """Decodes a plain attribute. A kind that JSON lacks is an object whose one key names it."""
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

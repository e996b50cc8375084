"""Records in the place of what a checkpoint keeps beside its model's layers: optimizers, dates,
namespaces, the wrappers of a training.

A record has the attributes of the object and none of its code, so that reading it runs nothing.
NumPy's numbers and texts are read here, because NumPy trusts the sizes that a file gives for them.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn import tasks


class Record:
    """Stands for an object of another class: its attributes, and `values` it was made of."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
_BESIDE = re.compile(
    r"(argparse|types)\.(Simple)?Namespace"
    r"|datetime\.(datetime|date|time|timedelta|timezone)|decimal\.Decimal|fractions\.Fraction"
    r"|uuid\.(UUID|SafeUUID)|pathlib\.(_local\.)?Pure\w*Path"
    r"|builtins\.(dict|frozenset|list|int|float|str|bool|slice|range)"
    r"|torch\.optim\.[\w.]+|torch\.(cuda\.)?amp\.grad_scaler\.\w+"
    r"|torch\._(dynamo|inductor)\.[\w.]+|torch\._TorchCompile\w+|contextlib\.nullcontext"
    r"|numpy\.(ndarray|dtype)|numpy\._?core\.multiarray\._reconstruct"
)
# Their contents come after them, and torch's reader fills plain containers alone.
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.defaultdict": lambda *values: {},
    "collections.deque": lambda *values: [],
}
_ATTRIBUTE = "builtins.getattr"
_SCALARS = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
# Kinds of NumPy's numbers, times and texts: none that holds objects or fields.
_SCALAR_KINDS = "biufcmMSU"


def permit(names: Iterable[str]) -> None:
    """Lets torch's restricted reader take records for those of these names that no model needs."""
    known: list[Any] = []
    for name in names:
        if name in _CONTAINERS:
            known.append((_CONTAINERS[name], name))
        elif name == _ATTRIBUTE:
            known.append((_attribute, name))
        elif name in _SCALARS:
            known.append((_scalar, name))
        elif name in _WRAPPERS or _BESIDE.fullmatch(name):
            known.append((kind(name), name))
    torch.serialization.add_safe_globals(known)


def _attribute(owner: Any, name: str) -> Any:
    """A method or member that a file names by its owner: of a record another record, of a layer its
    forward pass. No other method: torch's reader would call it.
    """
    if isinstance(owner, Record) or (isinstance(owner, type) and issubclass(owner, Record)):
        return Record(name)
    if not name.startswith("forward"):
        raise pickle.UnpicklingError(f"unsafe getattr of {name[:60]!r}")
    return tasks._SafeLoad._build()[_ATTRIBUTE](owner, name)


def _scalar(about: Any, data: bytes = b"") -> Any:
    """The number or text of these bytes. `about` is the record of its type, whose code, such as f8,
    gives the size. Raises ValueError.
    """
    code, state = about.values[0], about.__dict__.get("state")
    kind_of = np.dtype(code if isinstance(code, str) else "O")
    if kind_of.kind not in _SCALAR_KINDS or len(data) != kind_of.itemsize:
        raise ValueError(f"a value of NumPy's type {str(code)[:20]} has {len(data)} bytes")
    if isinstance(state, tuple) and state[1:2] == (">",):
        kind_of = kind_of.newbyteorder(">")
    return np.frombuffer(data, kind_of)[0] if data else kind_of.type()


def kind(name: str) -> type[Record]:
    """A class of records for one name, because torch takes a permitted class under one alone."""
    return type(name.rpartition(".")[2], (Record,), {"__module__": name.rpartition(".")[0]})


def unwrapped(content: Any) -> Any:
    """The module inside the wrappers of data parallel training and of compilation."""
    seen: Sequence[str] = ()
    while isinstance(content, Record) and len(seen) < len(_WRAPPERS):
        name = f"{type(content).__module__}.{type(content).__name__}"
        modules = content.__dict__.get("_modules")
        inner = modules.get(_WRAPPERS.get(name, "")) if isinstance(modules, dict) else None
        if inner is None and name in _WRAPPERS and content.__dict__.get("values"):
            inner = content.values[0]
        if not isinstance(inner, nn.Module | Record):
            return content
        content, seen = inner, (*seen, name)
    return content

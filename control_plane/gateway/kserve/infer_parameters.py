"""Parameters of a ModelInferRequest to options of Detect, priority and time limit. Pure.

A parameter that is not known is refused: a misspelt one would be ignored silently otherwise.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from control_plane.gateway.kserve.image_tensors import NCHW, NHWC, RGB, Order
from yolopool.errors import InvalidOption
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.v1 import detection_pb2, types_pb2
from yolopool.vocabulary import MAX_STICKY_KEY_CHARS

# Spellings of those who have YOLO on Triton, beside the names of DetectOptions.
ALSO = {"conf": "confidence", "max_det": "max_detections"}
_FRACTIONS = ("confidence", "iou")
_COUNTS = ("max_detections", "top_k", "image_size")
_FLAGS = ("agnostic_nms", "accept_damaged")
_CLASSES, _PRIORITY, _TIMEOUT = "classes", "priority", "timeout"
_LAYOUT, _ORDER = "layout", "channel_order"
_STICKY_KEY = "sticky_key"
_ORDERS = {"RGB": RGB, "BGR": types_pb2.CHANNEL_ORDER_BGR}
# What clients ask of the protocol itself: nothing here depends on it.
_OF_PROTOCOL = frozenset({"triton_enable_empty_final_response"})
NAMES = (
    *(*_FRACTIONS, *_COUNTS, *_FLAGS, _CLASSES, _PRIORITY, _TIMEOUT, _LAYOUT, _ORDER),
    _STICKY_KEY,
)
# 1 is the most urgent; 0 is what the server takes by default; all beyond the last are like it.
PRIORITIES = (
    types_pb2.PRIORITY_UNSPECIFIED,
    types_pb2.PRIORITY_INTERACTIVE,
    types_pb2.PRIORITY_NORMAL,
    types_pb2.PRIORITY_BULK,
)
_CLASS_LIST = re.compile(r" *[0-9]{1,9} *(?:, *[0-9]{1,9} *)*")
_MAX_CLASSES_CHARS = 64 * 1024
_MAX_UINT32 = 2**32 - 1
# Calls with a limit of centuries fail at once.
_MAX_TIMEOUT_S = 24 * 3600.0


@dataclass(slots=True)
class Parameters:
    """`timeout_s`: None without a limit; `layout`: None where the shape tells it."""

    options: detection_pb2.DetectOptions = field(default_factory=detection_pb2.DetectOptions)
    priority: types_pb2.Priority.ValueType = types_pb2.PRIORITY_UNSPECIFIED
    timeout_s: float | None = None
    layout: str | None = None
    order: Order = RGB


Value = bool | int | float | str


def parameters_of(given: Mapping[str, kserve.InferParameter]) -> Parameters:
    """Raises InvalidOption for one that is not known or has a wrong value."""
    found = Parameters()
    named: set[str] = set()
    for spelt, parameter in given.items():
        if spelt in _OF_PROTOCOL:
            continue
        name = ALSO.get(spelt, spelt)
        read = _READERS.get(name)
        if read is None:
            raise InvalidOption(
                f"parameter {spelt[:80]!r} is not known: there are {', '.join(NAMES)}"
            )
        if name in named:
            raise InvalidOption(f"{name} is given twice, by two spellings: leave one out")
        named.add(name)
        which = parameter.WhichOneof("parameter_choice")
        if which is None:
            raise InvalidOption(f"parameter {name} has no value: give one or leave it out")
        read(found, name, getattr(parameter, which))
    return found


def sticky_key_of(given: Mapping[str, kserve.InferParameter]) -> str:
    """By which the version of a request is chosen, before the others are read; empty: none."""
    return given[_STICKY_KEY].string_param if _STICKY_KEY in given else ""


def _sticky_key(found: Parameters, name: str, value: Value) -> None:
    if not isinstance(value, str) or len(value) > MAX_STICKY_KEY_CHARS:
        raise InvalidOption(
            f"{name} is {str(value)[:80]!r}: a text of {MAX_STICKY_KEY_CHARS} characters at most"
        )


def _fraction(found: Parameters, name: str, value: Value) -> None:
    if isinstance(value, bool | str) or not math.isfinite(value) or not 0 <= value <= 1:
        raise InvalidOption(f"{name} is {str(value)[:80]!r}: give a number, 0 to 1")
    setattr(found.options, name, value)


def _count(found: Parameters, name: str, value: Value) -> None:
    setattr(found.options, name, _whole(name, value, _MAX_UINT32))


def _flag(found: Parameters, name: str, value: Value) -> None:
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} is {str(value)[:80]!r}: give true or false")
    setattr(found.options, name, value)


def _classes(found: Parameters, name: str, value: Value) -> None:
    if isinstance(value, str):
        if len(value) > _MAX_CLASSES_CHARS or not _CLASS_LIST.fullmatch(value):
            raise InvalidOption(f'classes are {value[:80]!r}: give class ids, such as "0, 2"')
        found.options.classes.extend(int(one) for one in value.split(","))
    else:
        found.options.classes.append(_whole(name, value, _MAX_UINT32))


def _priority(found: Parameters, name: str, value: Value) -> None:
    level = _whole(name, value, 2**64 - 1)
    found.priority = PRIORITIES[min(level, len(PRIORITIES) - 1)]


def _timeout(found: Parameters, name: str, value: Value) -> None:
    micros = _whole(name, value, 2**63 - 1)
    found.timeout_s = min(micros / 1e6, _MAX_TIMEOUT_S) or None


def _layout(found: Parameters, name: str, value: Value) -> None:
    if value not in (NCHW, NHWC):
        raise InvalidOption(f"layout is {str(value)[:80]!r}: give {NCHW} or {NHWC}")
    found.layout = str(value)


def _order(found: Parameters, name: str, value: Value) -> None:
    order = _ORDERS.get(value) if isinstance(value, str) else None
    if order is None:
        raise InvalidOption(f"channel_order is {str(value)[:80]!r}: give {' or '.join(_ORDERS)}")
    found.order = order


def _whole(name: str, value: Value, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidOption(f"{name} is {str(value)[:80]!r}: give a whole number, 0 to {most}")
    return value


_READERS: Mapping[str, Callable[[Parameters, str, Value], None]] = {
    **dict.fromkeys(_FRACTIONS, _fraction),
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_FLAGS, _flag),
    _CLASSES: _classes,
    _PRIORITY: _priority,
    _TIMEOUT: _timeout,
    _LAYOUT: _layout,
    _ORDER: _order,
    _STICKY_KEY: _sticky_key,
}

"""Messages as JSON by the names of the protos, fast: what a Detect answers, on the path of every
request.

As google.protobuf.json_format with `always_print_fields_with_no_presence` writes them, with numbers
of 64 bits as numbers. `encoder` compiles a message type once: that takes a sixth of the library's
time.
"""

import base64
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Encode = Callable[[Any], dict[str, Any]]
Convert = Callable[[Any], Any] | None
# Bytes that are text.
_ASCII = frozenset({"yolopool.v1.RunLengths.counts"})


def dumps(message: Message) -> bytes:
    """JSON in UTF-8. Floats have as few digits as give the same float32 again."""
    return orjson.dumps(encoder(message.DESCRIPTOR)(message), option=orjson.OPT_SERIALIZE_NUMPY)


@cache
def encoder(kind: Descriptor) -> Encode:
    """Makes a dict of a message of this type, in the order of its fields; floats are numpy's."""
    fields = [
        (field.name, field.has_presence and not field.is_repeated, _of_field(field))
        for field in kind.fields
    ]

    def encode(message: Any) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, may_lack, convert in fields:
            if may_lack and not message.HasField(name):
                continue
            value = getattr(message, name)
            told[name] = value if convert is None else convert(value)
        return told

    return encode


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _ascii(value: bytes) -> str:
    return value.decode("ascii")


def _of_field(field: FieldDescriptor) -> Convert:
    """None: it is what it is."""
    one = _of_value(field)
    if not field.is_repeated:
        return one
    if one is np.float32:
        return lambda values: np.array(values, np.float32)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _of_value(field.message_type.fields_by_name["value"])
        return lambda values: {
            str(key): item if value is None else value(item) for key, item in values.items()
        }
    return list if one is None else lambda values: [one(value) for value in values]


def _of_value(field: FieldDescriptor) -> Convert:
    if field.message_type is not None:
        # Looked up when it is used: a message may hold its own kind.
        kind = field.message_type
        return lambda message: encoder(kind)(message)
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return np.float32
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _ascii if field.full_name in _ASCII else _base64
    return None

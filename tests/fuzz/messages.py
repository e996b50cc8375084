"""Changes protobuf messages at random, field by field, by their descriptors. Pure."""

from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.mutation import FLOATS, NUMBERS, TEXTS

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    # Open enums take any number.
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_REALS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_DEEPEST = 5


def change(message: Any, rng: Random, words: Sequence[str], data: Sequence[bytes]) -> None:
    """Changes one field somewhere in the message. `words` are texts, `data` values of bytes."""
    for _ in range(_DEEPEST):
        within = [part for part in _messages_in(message) if part.DESCRIPTOR.fields]
        if not within or rng.random() < 0.4:
            break
        message = rng.choice(within)
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_repeated(message, field, rng, words, data)
    else:
        _set(message, field, rng, words, data, 0)


def fill(
    message: Any, rng: Random, words: Sequence[str], data: Sequence[bytes], depth: int = 0
) -> None:
    """Sets some of the fields at random."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 / (depth + 1):
            if field.is_repeated:
                for _ in range(rng.randrange(3)):
                    _add(message, field, rng, words, data, depth)
            else:
                _set(message, field, rng, words, data, depth)


def _messages_in(message: Any) -> list[Any]:
    found: list[Any] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            found.append(value)
        elif not _is_map(field):
            found += list(value)[:20]
        elif field.message_type.fields_by_name["value"].message_type is not None:
            found += list(value.values())[:20]
    return found


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _change_repeated(
    message: Any, field: FieldDescriptor, rng: Random, words: Sequence[str], data: Sequence[bytes]
) -> None:
    values = getattr(message, field.name)
    if _is_map(field):
        if values and rng.random() < 0.3:
            del values[rng.choice(list(values))]
        else:
            _add(message, field, rng, words, data, 0)
        return
    match rng.randrange(5):
        case 0 if values:
            del values[rng.randrange(len(values))]
        case 1 if values and len(values) < 1000:
            values.extend([rng.choice(values)] * (1 << rng.randrange(8)))
        case 2 if values and field.message_type is None:
            values[rng.randrange(len(values))] = _scalar(field, rng, words, data)
        case _:
            _add(message, field, rng, words, data, 0)


def _add(
    message: Any,
    field: FieldDescriptor,
    rng: Random,
    words: Sequence[str],
    data: Sequence[bytes],
    depth: int,
) -> None:
    values = getattr(message, field.name)
    if _is_map(field):
        entry: Any = field.message_type
        key_kind, kind = (entry.fields_by_name[name] for name in ("key", "value"))
        key = _scalar(key_kind, rng, words, data)
        if kind.message_type is None:
            values[key] = _scalar(kind, rng, words, data)
        else:
            fill(values[key], rng, words, data, depth + 1)
    elif field.message_type is not None:
        fill(values.add(), rng, words, data, depth + 1)
    else:
        values.append(_scalar(field, rng, words, data))


def _set(
    message: Any,
    field: FieldDescriptor,
    rng: Random,
    words: Sequence[str],
    data: Sequence[bytes],
    depth: int,
) -> None:
    if field.message_type is None:
        setattr(message, field.name, _scalar(field, rng, words, data))
    else:
        part = getattr(message, field.name)
        part.SetInParent()
        if depth < _DEEPEST:
            fill(part, rng, words, data, depth + 1)


def _scalar(field: Any, rng: Random, words: Sequence[str], data: Sequence[bytes]) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_ENUM and (field.enum_type.is_closed or rng.random() < 0.8):
        return rng.choice(field.enum_type.values).number
    if kind in _INTEGERS:
        least, most = _INTEGERS[kind]
        return max(least, min(most, rng.choice(NUMBERS) * rng.choice((1, 1, 1, -1))))
    if kind in _REALS:
        return rng.choice(FLOATS) if rng.random() < 0.8 else rng.uniform(-2, 2)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice(data) if data and rng.random() < 0.7 else rng.randbytes(rng.randrange(40))
    return rng.choice(words) if words and rng.random() < 0.75 else rng.choice(TEXTS)


def parsed(kind: type[Message], data: bytes) -> Message | None:
    """The message, or None: the bytes are none."""
    try:
        return kind.FromString(data)
    except Exception:  # its types differ between versions of protobuf
        return None

"""Which messages are read at all: what of them is no image is small.

A message costs many times its bytes where it has many small parts. So a large one is looked at
before it is read: its bytes must be in fields of bytes.
"""

from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from yolopool.errors import InvalidArgument, MessageTooLarge

# Of a message without an image or file in it, and of all else in a message that has one.
MAX_PLAIN_BYTES = 4 * 1024**2
# Packed numbers, which take up to eight times their bytes.
MAX_NUMBERS_BYTES = 32 * 1024**2
# Smaller messages can't do harm, and are not looked at.
_SMALL_BYTES = 1024**2
# A part costs that much once it is read, however small it was.
_PART_BYTES = 64


@cache
def input_of(method: str) -> Descriptor | None:
    """The type of the messages that `/package.Service/Method` takes; None: it is not known."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
    except KeyError:
        return None
    return found.input_type


@cache
def carries_bytes(kind: Descriptor | None) -> bool:
    """Whether a message may have an image or a file in it; of an unknown kind it may."""
    return kind is None or _has_bytes(kind, set())


def check(data: bytes, kind: Descriptor | None) -> None:
    """Raises MessageTooLarge, or InvalidArgument for what is no message."""
    if len(data) <= _SMALL_BYTES or kind is None:
        return
    if not carries_bytes(kind):
        if len(data) > MAX_PLAIN_BYTES:
            raise MessageTooLarge(
                f"the message has {len(data)} bytes, and of this method at most {MAX_PLAIN_BYTES} "
                "are taken: send less at once"
            )
    elif _plain(memoryview(data), kind, MAX_PLAIN_BYTES) > MAX_PLAIN_BYTES:
        raise MessageTooLarge(
            f"the message has more than {MAX_PLAIN_BYTES} bytes beside its images, where a part "
            f"counts as {_PART_BYTES}: leave them out"
        )


def _has_bytes(kind: Descriptor, seen: set[str]) -> bool:
    seen.add(kind.full_name)
    for field in kind.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return True
        inner = field.message_type
        if inner is not None and inner.full_name not in seen and _has_bytes(inner, seen):
            return True
    return False


def _plain(data: memoryview, kind: Descriptor, limit: int) -> int:
    """What the parts cost that are no field of bytes; it stops beyond the limit."""
    at = plain = numbers = 0
    while at < len(data) and plain <= limit:
        key, at = _varint(data, at)
        plain += _PART_BYTES
        match key & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                size, at = _varint(data, at)
                field = kind.fields_by_number.get(key >> 3)
                if field is None:
                    plain += size
                elif field.message_type is not None:
                    plain += _plain(data[at : at + size], field.message_type, limit - plain)
                elif field.type == FieldDescriptor.TYPE_STRING:
                    plain += size
                elif field.type != FieldDescriptor.TYPE_BYTES:
                    numbers += size
                    plain += limit * (numbers > MAX_NUMBERS_BYTES)
                at += size
            case _:
                raise InvalidArgument("the message has a part of a kind that there is not")
    return plain


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise InvalidArgument("the message ends within a number")

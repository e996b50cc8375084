"""Which pools of workers the messages of a request name, whichever method they are of. Pure."""

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from control_plane.types.policy import POOL
from yolopool.v1 import types_pb2

_PLACEMENT = types_pb2.Placement.DESCRIPTOR


def pools_in(message: Message) -> set[str]:
    """The pools that placements in a message ask for, by field or by label."""
    found: set[str] = set()
    for placement in _placements(message):
        found |= {placement.pool, placement.labels.get(POOL, "")} - {""}
    return found


def _placements(message: Message) -> Iterator[types_pb2.Placement]:
    if isinstance(message, types_pb2.Placement):
        yield message
        return
    for field in _ways(message.DESCRIPTOR):
        inner = field.message_type
        assert inner is not None, "it leads to a message"
        if inner.GetOptions().map_entry:
            within = getattr(message, field.name).values()
        elif field.is_repeated:
            within = getattr(message, field.name)
        else:
            within = [getattr(message, field.name)] if message.HasField(field.name) else []
        for one in within:
            yield from _placements(one)


@cache
def _ways(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a message in which a placement may be."""
    return tuple(field for field in descriptor.fields if _leads(field, frozenset()))


def _leads(field: FieldDescriptor, seen: frozenset[Descriptor]) -> bool:
    inner = field.message_type
    if inner is None or inner in seen:
        return False
    return inner == _PLACEMENT or any(_leads(one, seen | {inner}) for one in inner.fields)

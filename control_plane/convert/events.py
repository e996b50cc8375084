"""Events and their filters between proto and types."""

import re

from control_plane.convert.versions import key_out
from control_plane.types.event import Event, EventFilter, EventKind
from yolopool.errors import InvalidOption
from yolopool.names import parse_ref
from yolopool.v1 import events_pb2

_ID = re.compile(r"(\d{1,20}(-\d{1,20})?)?")
_KINDS = {kind: events_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind}
_KINDS_IN = {number: kind for kind, number in _KINDS.items()}


def check_event_id(after: str) -> str:
    if not _ID.fullmatch(after):
        raise InvalidOption(f"after {after[:80]!r} is no event id: give one, or leave it empty")
    return after


def order_of(event_id: str) -> tuple[int, int]:
    """By which the ids of one store are compared."""
    time, _, number = event_id.partition("-")
    return int(time), int(number or 0)


def filter_in(request: events_pb2.WatchEventsRequest) -> EventFilter:
    """Raises InvalidOption for an unknown kind, InvalidModelReference for a wrong model."""
    unknown = [number for number in request.kinds if number not in _KINDS_IN]
    if unknown:
        raise InvalidOption(f"event kind {unknown[0]} is not known: leave it out")
    model = parse_ref(request.model) if request.model else None
    return EventFilter(
        frozenset(_KINDS_IN[number] for number in request.kinds), model, request.worker
    )


def event_out(event: Event) -> events_pb2.Event:
    return events_pb2.Event(
        id=event.id,
        unix_s=event.unix_s,
        kind=_KINDS[event.kind],
        worker=event.worker,
        version=key_out(event.version) if event.version is not None else None,
        reason=event.reason,
        message=event.message,
        control_plane=event.control_plane,
        image=event.image,
    )

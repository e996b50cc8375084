"""Which events a filter lets through."""

from dataclasses import replace

from control_plane.types.event import Event, EventFilter, EventKind
from control_plane.types.version import VersionKey
from yolopool.names import parse_ref


def test_events_are_chosen() -> None:
    event = Event(EventKind.ASSIGNED, 1.0, "w1", VersionKey("team/a", 2))
    assert EventFilter().everything
    assert EventFilter().has(event)
    for model, matches in (("team/a", True), ("team/a@2", True), ("team/a@1", False), ("a", False)):
        assert EventFilter(model=parse_ref(model)).has(event) is matches
    assert not EventFilter(model=parse_ref("team/a")).has(replace(event, version=None))
    assert EventFilter(frozenset({EventKind.ASSIGNED}), worker="w1").has(event)
    assert not EventFilter(frozenset({EventKind.RELEASED})).has(event)
    assert not EventFilter(worker="w2").has(event)

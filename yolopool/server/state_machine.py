"""A lifecycle as a table {(state, event): state}; anything else raises, with the history. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


class InvalidTransition(Exception):
    """A transition that the table does not have; the message has the events before it."""


@dataclass(frozen=True, slots=True)
class Life(Generic[State, Event]):
    """The state of one thing, and the last events that changed it."""

    name: str
    state: State
    story: tuple[Event, ...] = ()

    def apply(
        self, table: Mapping[tuple[State, Event], State], event: Event
    ) -> "Life[State, Event]":
        """The state after `event`; raises InvalidTransition with the events before it."""
        after = table.get((self.state, event))
        if after is None:
            story = ", ".join(self.story) or "nothing yet"
            raise InvalidTransition(
                f"{self.name} is {self.state} after {story}: {event} can't follow"
            )
        if after is self.state:
            return self
        # Twenty events are enough to explain a failure, and bound the history.
        return replace(self, state=after, story=(*self.story, event)[-20:])

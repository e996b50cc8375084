"""A lifecycle as a table {(state, event): state}; anything else raises, with the history. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


class InvalidTransition(Exception):
    """A transition that the table does not have; the message tells how it came to this."""


@dataclass(frozen=True, slots=True)
class Life(Generic[State, Event]):
    """State of one thing and the last events that changed it."""

    name: str
    state: State
    story: tuple[Event, ...] = ()

    def apply(
        self, table: Mapping[tuple[State, Event], State], event: Event
    ) -> "Life[State, Event]":
        """The next life, or InvalidTransition with the story so far."""
        after = table.get((self.state, event))
        if after is None:
            story = ", ".join(self.story) or "nothing yet"
            raise InvalidTransition(
                f"{self.name} is {self.state} after {story}: {event} can't follow"
            )
        if after is self.state:
            return self
        # The last twenty are enough to tell what went wrong, and bound a long life.
        return replace(self, state=after, story=(*self.story, event)[-20:])

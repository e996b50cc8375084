"""Changeovers and schedules: what to load, what to release, and when. Pure and frozen.

Models are references as callers write them. A bare name is resolved when a changeover happens, so
that a schedule loads the version that is the newest then.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from control_plane.types.moments import cron
from control_plane.types.moments.sun import SunMoment
from control_plane.types.policy import Placement
from yolopool.names import parse_ref

# The cron line of a schedule by the sun: no February begins with its fifth Monday. An earlier
# release, which knows no sun, leaves it alone.
NEVER = "0 0 */31 2 1#5"


@dataclass(frozen=True, slots=True)
class Preparation:
    """One model to load, with the options of LoadModel; `placement` None: unchanged."""

    model: str
    replicas: int = 1
    pinned: bool = False
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Changeover:
    """What to load, and what to stop wanting once all of it is loaded."""

    prepare: tuple[Preparation, ...]
    release: tuple[str, ...] = ()

    @property
    def models(self) -> frozenset[str]:
        """The names, without versions, of all models in it."""
        references = (*(preparation.model for preparation in self.prepare), *self.release)
        return frozenset(parse_ref(reference).name for reference in references)

    def without(self, is_named: Callable[[str], bool]) -> "Changeover":
        """It without the models whose references are named."""
        return replace(
            self,
            prepare=tuple(one for one in self.prepare if not is_named(one.model)),
            release=tuple(one for one in self.release if not is_named(one)),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A changeover at each match of `cron` in `time_zone`, or at each moment of the sun, and the
    result of the last one; `cron` is NEVER then.

    `since_unix_s`: when it was set; earlier moments do not count. `last_unix_s`: the last moment
    that was tried (0: none yet); `last_error`: why it failed, empty if it did not.
    """

    name: str
    cron: str
    time_zone: str
    lead_s: float
    change: Changeover
    since_unix_s: float
    last_unix_s: float = 0.0
    last_error: str = ""
    sun: SunMoment | None = None

    def next_after(self, unix_s: float) -> float:
        """Its first moment after `unix_s`, in Unix seconds; infinity if there is none."""
        if self.sun is not None:
            return self.sun.next_after(unix_s)
        return cron.next_after(self.cron, self.time_zone, unix_s)

    def latest_at(self, unix_s: float) -> float:
        """Its last moment not after `unix_s`, in Unix seconds; minus infinity if there is none."""
        if self.sun is not None:
            return self.sun.latest_at(unix_s)
        return cron.latest_at(self.cron, self.time_zone, unix_s)

    def same_request(self, other: "Schedule") -> bool:
        """Whether both ask for the same, whenever they were set and whatever their results."""
        return self == replace(
            other,
            since_unix_s=self.since_unix_s,
            last_unix_s=self.last_unix_s,
            last_error=self.last_error,
        )

    def noted(self, moment_unix_s: float, error: str) -> "Schedule":
        """With the result of one match, unless a later one is recorded or the match is older than
        this schedule (which replaced another meanwhile).
        """
        if moment_unix_s <= self.since_unix_s or moment_unix_s < self.last_unix_s:
            return self
        return replace(self, last_unix_s=moment_unix_s, last_error=error)

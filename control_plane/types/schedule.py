"""The nouns of changes of models: what is to be loaded, what released, and at which moments.

Pure and frozen. Models are references as callers write them: what a bare name means is looked up
when a change happens, so that a schedule loads the version that is the newest then.
"""

from dataclasses import dataclass, replace

from control_plane.types.policy import Placement


@dataclass(frozen=True, slots=True)
class Preparation:
    """One model to be loaded, as LoadModel has it; `placement` None: as it is."""

    model: str
    replicas: int = 1
    pinned: bool = False
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Changeover:
    """What is to be loaded, and what is not wanted any more once all of it is."""

    prepare: tuple[Preparation, ...]
    release: tuple[str, ...] = ()

    @property
    def models(self) -> frozenset[str]:
        """The names, without versions, of all it touches."""
        references = (*(one.model for one in self.prepare), *self.release)
        return frozenset(reference.partition("@")[0] for reference in references)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A change at each moment of `cron` in `time_zone`, and how the last one went.

    `since_unix_s`: when it was set; earlier moments are none of it. `last_unix_s`: the last moment
    that was tried (0: none yet), `last_error`: why it did not come true, empty if it did.
    """

    name: str
    cron: str
    time_zone: str
    lead_s: float
    change: Changeover
    since_unix_s: float
    last_unix_s: float = 0.0
    last_error: str = ""

    def same_request(self, other: "Schedule") -> bool:
        """Whether both ask for the same, whenever they were set and whatever became of them."""
        return self == replace(
            other,
            since_unix_s=self.since_unix_s,
            last_unix_s=self.last_unix_s,
            last_error=self.last_error,
        )

    def noted(self, moment_unix_s: float, error: str) -> "Schedule":
        """With what became of a moment, unless a later one is on record or it is none of this
        schedule's (it was replaced meanwhile).
        """
        if moment_unix_s <= self.since_unix_s or moment_unix_s < self.last_unix_s:
            return self
        return replace(self, last_unix_s=moment_unix_s, last_error=error)

"""What an application of a fleet file came to."""

from collections.abc import Callable
from dataclasses import dataclass, field

from yolopool.client.fleet_file.planning import Plan
from yolopool.client.fleet_file.resolving import Resolver
from yolopool.errors import YolopoolError

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What an application of a file would do; `resolver` finds the file's files."""

    file: str
    plan: Plan
    prefix: str
    resolver: Resolver


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be done; the rest was. `line` of the file, 0: of none."""

    line: int
    what: str
    error: YolopoolError | OSError


@dataclass(slots=True)
class Applied:
    """`later`: what waits for imports and builds; another application does it."""

    done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

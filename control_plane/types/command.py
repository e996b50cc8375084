"""The commands of a plan: decisions as data, each with its reason. Pure and frozen."""

from dataclasses import dataclass

from control_plane.types.version import VersionKey
from yolopool.error_table import rebuild_reason
from yolopool.errors import YolopoolError


@dataclass(frozen=True, slots=True)
class Assign:
    """Load `key` on `worker`, once the releases in `after` are done there."""

    worker: str
    key: VersionKey
    pinned: bool
    why: str
    after: tuple[VersionKey, ...] = ()
    # Load to host memory only, before anybody asks for it.
    prefetch: bool = False

    def __str__(self) -> str:
        verb = "prefetch" if self.prefetch else "assign"
        return f"{verb} {self.key} to {self.worker}: {self.why}"


@dataclass(frozen=True, slots=True)
class Release:
    """Release `key` on `worker`.

    `drop_want`: its want was soft and ends with it; with `replicas_left` other copies stay wanted.
    """

    worker: str
    key: VersionKey
    why: str
    drop_want: bool = False
    replicas_left: int = 0
    reason: str = "UNWANTED"  # or ROOM, SHARE, IDLE, SURPLUS, MOVED, STRANDED: labels of a metric

    def __str__(self) -> str:
        return f"release {self.key} from {self.worker}: {self.why}"


@dataclass(frozen=True, slots=True)
class Blocked:
    """A want that can't be met now; `reason` is an error reason of `yolopool.errors`."""

    key: VersionKey
    reason: str
    why: str
    final: bool = False  # no change of load on the present workers would help
    retry_after_s: float | None = None  # until the next attempt, if that is known

    def __str__(self) -> str:
        return f"blocked {self.key}: {self.reason}: {self.why}"

    def as_error(self) -> YolopoolError:
        """The error that a caller gets for what the plan could not do."""
        return rebuild_reason(self.reason, self.why, retry_after_s=self.retry_after_s)


@dataclass(frozen=True, slots=True)
class DropWant:
    """End a soft want that can't be met: nothing is retried until someone asks again."""

    key: VersionKey
    why: str

    def __str__(self) -> str:
        return f"drop want of {self.key}: {self.why}"


@dataclass(frozen=True, slots=True)
class KeepPrefetched:
    """A prefetched version is in use: it is wanted from now on."""

    key: VersionKey

    def __str__(self) -> str:
        return f"keep {self.key}: it was prefetched and is in use"


Command = Assign | Release | Blocked | DropWant | KeepPrefetched

"""What one look of a watch means: which files are new and finished. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from control_plane.sources.remote_file import Found
from control_plane.types.sources.watch import Watch


class Waiting(NamedTuple):
    """A file that is not known yet: its stamp, and since when it has it (monotonic seconds)."""

    stamp: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """`new`: to be registered, the oldest first. `passed_over`: what the first look leaves as it
    is, by name with its stamp. `waiting`: files that may still be written.
    """

    new: tuple[Found, ...]
    passed_over: Mapping[str, str]
    waiting: Mapping[str, Waiting]


def matching(watch: Watch, found: Iterable[Found]) -> list[Found]:
    """Files that the watch is about. Names that begin with a dot are of programs that write."""
    return [
        file
        for file in found
        if not file.name.startswith(".")
        and any(fnmatchcase(file.name, pattern) for pattern in watch.patterns)
    ]


def look(
    watch: Watch, found: Iterable[Found], waiting: Mapping[str, Waiting], now_s: float
) -> Look:
    """The first look of a watch takes the newest file alone: what lies there is no news. After it
    every file counts whose stamp is not known, once it was the same for `settle_s`, in two looks.
    """
    unknown = sorted(
        (file for file in found if watch.seen.get(file.name) != file.stamp),
        key=lambda file: (file.changed_unix_s, file.name),
    )
    passed_over = {} if watch.begun else {file.name: file.stamp for file in unknown[:-1]}
    new: list[Found] = []
    still: dict[str, Waiting] = {}
    for file in unknown:
        if file.name in passed_over:
            continue
        before = waiting.get(file.name)
        if before is None or before.stamp != file.stamp:
            still[file.name] = Waiting(file.stamp, now_s)
        elif now_s - before.since_s >= watch.settle_s:
            new.append(file)
        else:
            still[file.name] = before
    return Look(tuple(new), passed_over, still)

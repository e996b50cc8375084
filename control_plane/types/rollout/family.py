"""Families: an alias that is one of several models, chosen at each request by its deadline or by
the time of day. Pure and frozen.

Members are references as callers write them, and all of one task and one list of classes, so that
an answer means the same whichever of them gave it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

from control_plane.types.moments.day_parts import Part, by_clock, by_sun, check_pair, is_clock
from control_plane.types.moments.sun import Place, place_of, sun_moment
from control_plane.types.version import ModelVersion
from yolopool.errors import InvalidFamily

MAX_MEMBERS = 16


@dataclass(frozen=True, slots=True)
class Member:
    """`begins`: of a family by the time of day, when it takes over each day: 06:30, or dusk-15m."""

    model: str
    begins: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """By size: members from small to large, of which the largest answers that meets the deadline of
    a request, or `within_s` if that is sooner (0: the deadline alone). By the time of day: members
    that each begin at a time of `time_zone`, or two that begin at dawn and dusk, or at sunrise and
    sunset, of a `place`.

    `task` and `classes`, the digest of the class names, are those of its members when it was set.
    """

    members: tuple[Member, ...]
    within_s: float = 0.0
    time_zone: str = ""
    place: Place | None = None
    task: str = ""
    classes: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(member.model for member in self.members)

    @property
    def is_by_size(self) -> bool:
        return not any(member.begins for member in self.members)

    def part(self, unix_s: float) -> Part:
        """Of one by the time of day: whose time it is."""
        begins = [member.begins for member in self.members]
        if self.place is None:
            return by_clock(begins, self.time_zone, unix_s)
        day, night = (sun_moment(text, self.place) for text in begins)
        return by_sun(day, night, unix_s)

    def misfit(self, version: ModelVersion) -> str:
        """Why this version can't answer for the family; empty: it can."""
        pack = version.pack
        if pack is None:
            return f"{version.key} is {version.state}"
        if pack.task != self.task:
            return f"{version.key} is for {pack.task}, the family for {self.task}"
        if classes_of(version) != self.classes:
            return f"{version.key} has other classes than the family"
        return ""


def family_of(raw: Mapping[str, Any] | None) -> Family | None:
    """From a stored record; fields that a newer release added are ignored."""
    if not raw:
        return None
    known = {name: raw[name] for name in Family.__dataclass_fields__ if name in raw}
    members = tuple(Member(one["model"], one["begins"]) for one in raw["members"])
    place = place_of(raw["place"]) if raw.get("place") else None
    return Family(**{**known, "members": members, "place": place})


def check_family(family: Family) -> None:
    """Raises InvalidFamily and InvalidSchedule for what no models could mend."""
    if not 2 <= len(family.members) <= MAX_MEMBERS:
        raise InvalidFamily(
            f"a family has 2 to {MAX_MEMBERS} members, and this one {len(family.members)}"
        )
    if len(set(family.models)) < len(family.members):
        raise InvalidFamily("a family names a member twice: name each once")
    # Written so that NaN is rejected too.
    if not 0 <= family.within_s <= 3600:
        raise InvalidFamily(f"within_s is {family.within_s:g}: give 0 to 3600 seconds")
    if not family.is_by_size:
        _check_begins(family)
    elif family.place is not None:
        raise InvalidFamily("a place goes with members that begin at dawn and dusk")


def _check_begins(family: Family) -> None:
    begins = [member.begins for member in family.members]
    if not all(begins):
        raise InvalidFamily("say of each member when it begins, or of none: then the size decides")
    if family.within_s:
        raise InvalidFamily("within_s goes with members by size, not with those by time of day")
    if family.place is not None:
        if len(begins) != 2:
            raise InvalidFamily("by the sun a family has two members: one by day, one by night")
        check_pair(*(sun_moment(text, family.place) for text in begins))
    elif not all(map(is_clock, begins)):
        raise InvalidFamily(
            f"members begin at {', '.join(begins)}: give times of day such as 06:30, or dawn and "
            "dusk and the place"
        )
    elif len(set(begins)) < len(begins):
        raise InvalidFamily("two members begin at the same time")


def of_members(family: Family, versions: Sequence[ModelVersion]) -> Family:
    """The family with the task and classes of its members; `versions`: what they mean now.

    Raises InvalidFamily with all that does not fit: an import that did not end, other tasks or
    classes, and of one by size the wrong order.
    """
    wrong = [
        f"{version.key} is {version.state}: a member is READY"
        for version in versions
        if version.pack is None
    ]
    if wrong:
        raise InvalidFamily("; ".join(wrong))
    first = versions[0]
    wrong += [fault for version in versions[1:] if (fault := _unlike(first, version))]
    if family.is_by_size:
        wrong += [
            f"{larger.key} does less work an image than {smaller.key}: list members from small to "
            "large"
            for smaller, larger in pairwise(versions)
            if work_of(larger) < work_of(smaller)
        ]
    if wrong:
        raise InvalidFamily("; ".join(wrong))
    assert first.pack is not None, "all have one"
    return Family(
        family.members,
        family.within_s,
        family.time_zone,
        family.place,
        first.pack.task,
        classes_of(first),
    )


def work_of(version: ModelVersion) -> int:
    """How large a member is: its parameters times the pixels that it sees. 0: not known."""
    size, pack = version.settings, version.pack
    pixels = size.image_height * size.image_width or size.image_size**2
    return pixels * pack.parameters if pack is not None else 0


def classes_of(version: ModelVersion) -> str:
    """A digest of the class names, in order."""
    names = version.pack.class_names if version.pack is not None else ()
    return sha256("\n".join(names).encode()).hexdigest()


def _unlike(first: ModelVersion, other: ModelVersion) -> str:
    """How a member differs in what all have to share; empty: in nothing."""
    assert first.pack is not None, "it was checked"
    assert other.pack is not None, "it was checked"
    if other.pack.task != first.pack.task:
        return f"{other.key} is for {other.pack.task}, {first.key} for {first.pack.task}"
    names, others = first.pack.class_names, other.pack.class_names
    if names == others:
        return ""
    if len(names) != len(others):
        return f"{other.key} has {len(others)} classes, {first.key} {len(names)}"
    number = next(number for number, name in enumerate(names) if others[number] != name)
    return f"class {number} is {others[number]!r} of {other.key}, {names[number]!r} of {first.key}"

"""Families: their records for callers, and the calls about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolopool.client.calls import READ_TIMEOUT_S, Call
from yolopool.client.rollout.schedule_calls import place_of
from yolopool.v1 import families_pb2


@dataclass(frozen=True, slots=True)
class FamilyMember:
    """`model`: as the family names it; `begins`: the time of day from which it answers, empty: the
    size decides. `version`: what it means now, name@version; empty: it can't answer, `left_out`
    says why. `loaded`: on how many workers; `answer_ms`: the estimate for a request that came now,
    0: it is not loaded. `first_choice`: it is its time, or it is the largest that is loaded.
    """

    model: str
    begins: str
    version: str
    left_out: str
    loaded: int
    answer_ms: float
    first_choice: bool


@dataclass(frozen=True, slots=True)
class Family:
    """`name`: model:name. `within_s` 0: the deadline of each request decides. `place`: latitude and
    longitude in degrees. `until_unix_s`: when the next member takes over, 0: the size decides.
    """

    name: str
    members: tuple[FamilyMember, ...]
    task: str
    within_s: float
    time_zone: str
    place: tuple[float, float] | None
    until_unix_s: float
    revision: int


def family(alias: str) -> Call[Family]:
    """One family, model:name: what its members mean now, and which of them answers."""
    request = families_pb2.GetFamilyRequest(alias=alias)
    return Call("families", "GetFamily", request, READ_TIMEOUT_S, lambda reply: _of(reply.family))


def set_family(
    alias: str,
    members: Sequence[str] | Mapping[str, str],
    *,
    within_s: float = 0.0,
    time_zone: str = "",
    place: tuple[float, float] | None = None,
    expected_revision: int | None = None,
    why: str = "",
    load: bool = True,
) -> Call[Family]:
    """Makes an alias, model:name, that is one of several models of one task and class list.

    A sequence is from small to large: the largest that is loaded and will meet the deadline of a
    request answers it, or that answers `within_s` if that is sooner. A mapping says when each
    begins: {"06:00": "day", "22:00": "night"} in a `time_zone`, or {"dawn": "day", "dusk-15m":
    "night"} at a `place`, a latitude and a longitude in degrees. With `load` members that nobody
    has asked for are loaded. Raises InvalidFamily with what does not fit.
    """
    pairs = (
        [("", model) for model in members]
        if not isinstance(members, Mapping)
        else list(members.items())
    )
    request = families_pb2.SetFamilyRequest(
        alias=alias,
        family=families_pb2.Family(
            members=[
                families_pb2.FamilyMember(model=model, begins=begins) for begins, model in pairs
            ],
            within_s=within_s,
            time_zone=time_zone,
            place=place_of(place),
        ),
        expected_revision=expected_revision,
        why=why,
        no_load=not load,
    )
    return Call("families", "SetFamily", request, READ_TIMEOUT_S, lambda reply: _of(reply.family))


def _of(message: families_pb2.FamilyStatus) -> Family:
    family = message.family
    place = family.place
    return Family(
        message.alias,
        tuple(_member(*pair) for pair in zip(family.members, message.members, strict=True)),
        message.task,
        family.within_s,
        family.time_zone,
        (place.latitude, place.longitude) if family.HasField("place") else None,
        message.until_unix_s,
        message.revision,
    )


def _member(asked: families_pb2.FamilyMember, now: families_pb2.FamilyMemberStatus) -> FamilyMember:
    known = now.HasField("version")
    return FamilyMember(
        asked.model,
        asked.begins,
        f"{now.version.model}@{now.version.version}" if known else "",
        now.left_out,
        now.loaded,
        now.answer_ms,
        now.first_choice,
    )

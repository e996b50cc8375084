"""What schedules ask for now, and when to look again: pure, time is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from control_plane.types.cron import latest_at, next_after
from control_plane.types.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Due:
    """A change to bring about. Before its moment (`has_come` false) only what it prepares."""

    moment_unix_s: float
    schedule: Schedule
    has_come: bool


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is due, what has come by moment first, and the next time that anything becomes so."""

    due: tuple[Due, ...]
    next_unix_s: float


def due(schedules: Iterable[Schedule], now: float) -> Agenda:
    """now: Unix seconds. Of each schedule the latest moment counts, also a missed one, until it
    came true. Where two share a model, the later waits until the earlier was tried, and the
    earlier is not tried again over the later.
    """
    ordered = sorted(schedules, key=lambda one: one.name)
    latest = {one.name: latest_at(one.cron, one.time_zone, now) for one in ordered}
    come = [one for one in ordered if latest[one.name] > one.since_unix_s]
    come.sort(key=lambda one: latest[one.name])
    found = [
        Due(latest[one.name], one, has_come=True) for one in come if _is_open(one, come, latest)
    ]
    looks = []
    for one in ordered:
        moment = next_after(one.cron, one.time_zone, now)
        looks.append(moment)
        if one.change.prepare and now < moment - one.lead_s:
            looks.append(moment - one.lead_s)
        elif one.change.prepare:
            found.append(Due(moment, one, has_come=False))
    return Agenda(tuple(found), min(looks, default=float("inf")))


def _is_open(one: Schedule, come: Sequence[Schedule], latest: Mapping[str, float]) -> bool:
    """Whether the latest moment of one is to be made true now; `come`: all, by that moment."""
    moment = latest[one.name]
    if one.last_unix_s >= moment and not one.last_error:
        return False
    rivals = [other for other in come if other is not one and _share(one, other)]
    if one.last_unix_s >= moment:  # it failed: not again if it would undo a later one
        return all(latest[other.name] <= moment for other in rivals)
    earlier = (other for other in rivals if latest[other.name] < moment)
    return all(other.last_unix_s >= latest[other.name] for other in earlier)


def _share(one: Schedule, other: Schedule) -> bool:
    return not one.change.models.isdisjoint(other.change.models)

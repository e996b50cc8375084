"""Which schedules are due now, and when the next becomes due. Pure: time is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from control_plane.types.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Due:
    """A changeover that is due. Before its moment (`has_come` is false) it only prepares."""

    moment_unix_s: float
    schedule: Schedule
    has_come: bool


@dataclass(frozen=True, slots=True)
class Agenda:
    """All that is due, moments that have come first; and when the next becomes due."""

    due: tuple[Due, ...]
    next_unix_s: float


def due(schedules: Iterable[Schedule], now: float) -> Agenda:
    """now: Unix seconds. The latest moment of a schedule is due until it was carried out, even if
    it was missed. Where two schedules share a model, the later moment waits until the earlier one
    was tried, and the earlier one is not retried after the later.
    """
    ordered = sorted(schedules, key=lambda schedule: schedule.name)
    latest = {schedule.name: schedule.latest_at(now) for schedule in ordered}
    come = [schedule for schedule in ordered if latest[schedule.name] > schedule.since_unix_s]
    come.sort(key=lambda schedule: latest[schedule.name])
    found = [
        Due(latest[schedule.name], schedule, has_come=True)
        for schedule in come
        if _is_open(schedule, come, latest)
    ]
    changes = []
    for schedule in ordered:
        moment = schedule.next_after(now)
        changes.append(moment)
        if schedule.change.prepare and now < moment - schedule.lead_s:
            changes.append(moment - schedule.lead_s)
        elif schedule.change.prepare:
            found.append(Due(moment, schedule, has_come=False))
    return Agenda(tuple(found), min(changes, default=float("inf")))


def _is_open(schedule: Schedule, come: Sequence[Schedule], latest: Mapping[str, float]) -> bool:
    """Whether to carry out the latest moment now; `come`: all that have one, ordered by it."""
    moment = latest[schedule.name]
    if schedule.last_unix_s >= moment and not schedule.last_error:
        return False
    rivals = [other for other in come if other is not schedule and _share(schedule, other)]
    if schedule.last_unix_s >= moment:  # it failed: no retry if that would undo a later one
        return all(latest[other.name] <= moment for other in rivals)
    earlier = (other for other in rivals if latest[other.name] < moment)
    return all(other.last_unix_s >= latest[other.name] for other in earlier)


def _share(schedule: Schedule, other: Schedule) -> bool:
    return not schedule.change.models.isdisjoint(other.change.models)

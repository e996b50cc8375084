"""Schedules as frozen records for callers; `dataclasses.asdict` gives their JSON."""

from dataclasses import dataclass

from yolopool.v1 import schedule_pb2


@dataclass(frozen=True, slots=True)
class Preparation:
    """A model that a schedule loads: name or name@version, and on how many workers."""

    model: str
    replicas: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """A changeover at every time that `cron` matches in `time_zone` (empty: UTC), or at every
    moment of the `sun`, such as "dusk-15m", at a `place` (latitude, longitude in degrees).

    Times are Unix seconds. `last_unix_s` 0: it never ran; `last_error` empty: the last run
    succeeded. `sun_absence`: why the sun has no such moment within a day and a half.
    """

    name: str
    cron: str
    time_zone: str
    lead_s: float
    prepare: tuple[Preparation, ...]
    release: tuple[str, ...]
    next_unix_s: float
    last_unix_s: float
    last_error: str
    sun: str = ""
    place: tuple[float, float] | None = None
    sun_absence: str = ""


def schedule_of(message: schedule_pb2.ScheduleStatus) -> Schedule:
    schedule, change, at = message.schedule, message.schedule.change, message.schedule.place
    return Schedule(
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        lead_s=schedule.lead_s,
        prepare=tuple(Preparation(load.model, load.replicas, load.pin) for load in change.prepare),
        release=tuple(change.release),
        next_unix_s=message.next_unix_s,
        last_unix_s=message.last_unix_s,
        last_error=message.last_error,
        sun=schedule.sun,
        place=(at.latitude, at.longitude) if schedule.HasField("place") else None,
        sun_absence=message.sun_absence,
    )


def schedules_of(message: schedule_pb2.ListSchedulesResponse) -> tuple[Schedule, ...]:
    return tuple(schedule_of(schedule) for schedule in message.schedules)

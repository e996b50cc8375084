"""The calls about schedules: changeovers at set times, or by the sun."""

from collections.abc import Sequence

from yolopool.client import requests
from yolopool.client.calls import READ_TIMEOUT_S, Call
from yolopool.client.rollout import schedule_records
from yolopool.v1 import schedule_pb2, types_pb2


def set_schedule(
    name: str,
    cron: str,
    prepare: Sequence[str],
    release: Sequence[str] = (),
    *,
    time_zone: str = "",
    lead_s: float = 0.0,
    replicas: int = 1,
    pin: bool = False,
    sun: str = "",
    place: tuple[float, float] | None = None,
) -> Call[schedule_records.Schedule]:
    """Creates or replaces a schedule: a changeover at every time that `cron` matches.

    `cron` is "minute hour day-of-month month day-of-week" in an IANA `time_zone` (empty: UTC).
    Where it is empty, `sun` says when: "dawn", "sunrise", "sunset" or "dusk", with an offset such
    as "dusk-15m", at a `place` (latitude and longitude in degrees). Loading begins `lead_s` seconds
    earlier. Raises InvalidSchedule.
    """
    request = schedule_pb2.SetScheduleRequest(
        schedule=schedule_pb2.Schedule(
            name=name,
            cron=cron,
            time_zone=time_zone,
            lead_s=lead_s,
            change=requests.changeover(prepare, release, replicas, pin),
            sun=sun,
            place=place_of(place),
        )
    )
    return Call(
        "schedule",
        "SetSchedule",
        request,
        READ_TIMEOUT_S,
        lambda reply: schedule_records.schedule_of(reply.schedule),
    )


def schedules() -> Call[tuple[schedule_records.Schedule, ...]]:
    """All schedules, sorted by name."""
    request = schedule_pb2.ListSchedulesRequest()
    return Call("schedule", "ListSchedules", request, READ_TIMEOUT_S, schedule_records.schedules_of)


def delete_schedule(name: str) -> Call[None]:
    """Deletes a schedule; the models it loaded stay loaded. Raises ScheduleNotFound."""
    request = schedule_pb2.DeleteScheduleRequest(name=name)
    return Call("schedule", "DeleteSchedule", request, READ_TIMEOUT_S, lambda _: None)


def place_of(at: tuple[float, float] | None) -> types_pb2.Place | None:
    """The message of a latitude and a longitude, in degrees."""
    return types_pb2.Place(latitude=at[0], longitude=at[1]) if at is not None else None

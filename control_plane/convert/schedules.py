"""Schedules and changeovers between proto and types, with the checks of their messages."""

import re

from control_plane.convert.validation import check_placement, check_replicas
from control_plane.convert.versions import placement_in, placement_out
from control_plane.types.moments.cron import check_cron, zone_of
from control_plane.types.moments.sun import Place, SunMoment, sun_moment
from control_plane.types.schedule import NEVER, Changeover, Preparation, Schedule
from yolopool.errors import InvalidOption, InvalidSchedule
from yolopool.names import parse_ref
from yolopool.v1 import model_pb2, schedule_pb2, types_pb2

MAX_MODELS = 1000
MAX_LEAD_S = 86_400.0
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def changeover_in(request: model_pb2.ChangeoverRequest) -> Changeover:
    """Raises InvalidOption, InvalidModelReference."""
    if not request.prepare and not request.release:
        raise InvalidOption("a changeover names models to prepare, to release, or both")
    if len(request.prepare) > MAX_MODELS or len(request.release) > MAX_MODELS:
        raise InvalidOption(f"a changeover names at most {MAX_MODELS} models on each side")
    return Changeover(
        tuple(_preparation_in(load) for load in request.prepare),
        tuple(str(parse_ref(reference)) for reference in request.release),
    )


def _preparation_in(request: model_pb2.LoadModelRequest) -> Preparation:
    placement = None
    if request.HasField("placement"):
        placement = placement_in(check_placement(request.placement))
    return Preparation(
        str(parse_ref(request.model)), check_replicas(request.replicas), request.pin, placement
    )


def change_out(change: Changeover) -> model_pb2.ChangeoverRequest:
    return model_pb2.ChangeoverRequest(
        prepare=[
            model_pb2.LoadModelRequest(
                model=load.model,
                replicas=load.replicas,
                pin=load.pinned,
                placement=placement_out(load.placement) if load.placement is not None else None,
            )
            for load in change.prepare
        ],
        release=change.release,
    )


def check_schedule_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidSchedule(
            f"{name[:80]!r} is no schedule name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning and ending with a letter or digit"
        )
    return name


def schedule_in(schedule: schedule_pb2.Schedule, now: float) -> Schedule:
    """A schedule that is set now (Unix seconds). Raises InvalidSchedule, and as `changeover_in`."""
    # Written so that NaN is rejected too.
    if not 0.0 <= schedule.lead_s <= MAX_LEAD_S:
        raise InvalidSchedule(f"lead_s is {schedule.lead_s:g}: give 0 to {MAX_LEAD_S:g}")
    zone_of(schedule.time_zone)
    sun = _sun_in(schedule)
    return Schedule(
        name=check_schedule_name(schedule.name),
        cron=check_cron(schedule.cron) if sun is None else NEVER,
        time_zone=schedule.time_zone,
        lead_s=schedule.lead_s,
        change=changeover_in(schedule.change),
        since_unix_s=now,
        sun=sun,
    )


def _sun_in(schedule: schedule_pb2.Schedule) -> SunMoment | None:
    if not schedule.sun:
        if schedule.HasField("place"):
            raise InvalidSchedule("a place goes with sun, such as dusk-15m: cron needs none")
        return None
    if schedule.cron:
        raise InvalidSchedule("give cron or sun, not both")
    if not schedule.HasField("place"):
        raise InvalidSchedule("the sun needs a place: give its latitude and longitude, in degrees")
    return sun_moment(schedule.sun, Place(schedule.place.latitude, schedule.place.longitude))


def place_out(place: Place) -> types_pb2.Place:
    return types_pb2.Place(latitude=place.latitude, longitude=place.longitude)


def status_out(schedule: Schedule, now: float) -> schedule_pb2.ScheduleStatus:
    sun = schedule.sun
    return schedule_pb2.ScheduleStatus(
        schedule=schedule_pb2.Schedule(
            name=schedule.name,
            cron=schedule.cron if sun is None else "",
            time_zone=schedule.time_zone,
            lead_s=schedule.lead_s,
            change=change_out(schedule.change),
            sun=sun.text if sun is not None else "",
            place=place_out(sun.place) if sun is not None else None,
        ),
        next_unix_s=schedule.next_after(now),
        sun_absence=sun.absence(now) if sun is not None else "",
        last_unix_s=schedule.last_unix_s,
        last_error=schedule.last_error,
    )

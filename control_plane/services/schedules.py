"""ScheduleService: sets, lists and deletes schedules; the schedule controller runs them."""

import structlog

from control_plane.caller import CallContext, Principal, principal_of
from control_plane.convert.schedules import schedule_in, status_out
from control_plane.identity.access import name_of
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.registry import DesiredState
from control_plane.types.access.api_key import is_granted
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import GrantNeeded, InvalidSchedule, ScheduleNotFound
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import schedule_pb2, schedule_pb2_grpc

log = structlog.get_logger()


class ScheduleService(schedule_pb2_grpc.ScheduleServiceServicer):
    def __init__(self, registry: DesiredState, view: View, refresh: Refresh, clock: Clock) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock

    async def SetSchedule(
        self, request: schedule_pb2.SetScheduleRequest, context: CallContext
    ) -> schedule_pb2.SetScheduleResponse:
        schedule = schedule_in(request.schedule, self._clock.unix())
        prepared = [self._key(load.model) for load in schedule.change.prepare]
        for reference in schedule.change.release:
            self._key(reference)
        if len(set(prepared)) < len(prepared):
            raise InvalidSchedule("prepare names a model twice: name it once")
        self._check_own(schedule.name, principal_of(context))
        schedules = self._view.desired.schedules
        if schedule.name not in schedules:
            check_room(schedules, bounds.MAX_SCHEDULES, "schedules")
        held = await self._registry.put_schedule(schedule)
        await self._refresh()
        log.info("schedule set", schedule=held.name, by=principal_of(context).name)
        return schedule_pb2.SetScheduleResponse(schedule=status_out(held, self._clock.unix()))

    async def ListSchedules(
        self, request: schedule_pb2.ListSchedulesRequest, context: CallContext
    ) -> schedule_pb2.ListSchedulesResponse:
        schedules, now = self._view.desired.schedules, self._clock.unix()
        return schedule_pb2.ListSchedulesResponse(
            schedules=[status_out(schedules[name], now) for name in sorted(schedules)]
        )

    async def GetSchedule(
        self, request: schedule_pb2.GetScheduleRequest, context: CallContext
    ) -> schedule_pb2.GetScheduleResponse:
        schedule = self._view.desired.schedules.get(request.name)
        if schedule is None:
            raise _unknown(request.name)
        return schedule_pb2.GetScheduleResponse(schedule=status_out(schedule, self._clock.unix()))

    async def DeleteSchedule(
        self, request: schedule_pb2.DeleteScheduleRequest, context: CallContext
    ) -> schedule_pb2.DeleteScheduleResponse:
        existed = await self._registry.delete_schedule(request.name)
        await self._refresh()
        if not existed:
            raise _unknown(request.name)
        log.info("schedule deleted", schedule=request.name, by=principal_of(context).name)
        return schedule_pb2.DeleteScheduleResponse()

    def _check_own(self, name: str, caller: Principal) -> None:
        """Raises GrantNeeded for a caller who would overwrite what is about others' models."""
        there = self._view.desired.schedules.get(name)
        if there is None:
            return
        change = there.change
        named = (*(load.model for load in change.prepare), *change.release)
        if not all(is_granted(caller.grants, name_of(reference)) for reference in named):
            raise GrantNeeded(f"schedule {name!r} is there, about other models: use another name")

    def _key(self, reference: str) -> VersionKey:
        """The version that a reference names now, ready or not."""
        return self._view.catalogue.find(parse_ref(reference)).key


def _unknown(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"there is no schedule {name[:80]!r}: list them to see their names")

"""WatchService: sets, lists and removes watches; the watcher looks."""

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.watches import watch_in, watch_out
from control_plane.sources.opening import Sources
from control_plane.store.bounds import check_room
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.types.sources.source import Source
from control_plane.types.sources.watch import MAX_WATCHES
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import WatchNotFound
from yolopool.server.clock import Clock
from yolopool.v1 import watches_pb2, watches_pb2_grpc

log = structlog.get_logger()


class WatchService(watches_pb2_grpc.WatchServiceServicer):
    def __init__(
        self, records: SourceRecords, sources: Sources, view: View, refresh: Refresh, clock: Clock
    ) -> None:
        self._records = records
        self._sources = sources
        self._view = view
        self._refresh = refresh
        self._clock = clock

    async def SetWatch(
        self, request: watches_pb2.SetWatchRequest, context: CallContext
    ) -> watches_pb2.SetWatchResponse:
        by = principal_of(context).name
        watch = watch_in(request.watch, by, self._clock.unix())
        self._sources.check_folder(Source(watch.uri, watch.profile))
        watches = self._view.desired.watches
        if watch.name not in watches:
            check_room(watches, MAX_WATCHES, "watches")
        held = await self._records.put_watch(watch)
        await self._refresh()
        log.info("watch set", watch=held.name, uri=held.uri, model=held.model, by=by)
        return watches_pb2.SetWatchResponse(watch=watch_out(held))

    async def ListWatches(
        self, request: watches_pb2.ListWatchesRequest, context: CallContext
    ) -> watches_pb2.ListWatchesResponse:
        watches = self._view.desired.watches
        return watches_pb2.ListWatchesResponse(
            watches=[watch_out(watches[name]) for name in sorted(watches)]
        )

    async def DeleteWatch(
        self, request: watches_pb2.DeleteWatchRequest, context: CallContext
    ) -> watches_pb2.DeleteWatchResponse:
        if not await self._records.drop_watch(request.name):
            raise WatchNotFound(
                f"there is no watch {request.name[:80]!r}: list the watches to see their names"
            )
        await self._refresh()
        log.info("watch removed", watch=request.name, by=principal_of(context).name)
        return watches_pb2.DeleteWatchResponse()

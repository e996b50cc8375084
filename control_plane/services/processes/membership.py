"""MembershipService: workers join, send heartbeats, leave, and report exits of their processes."""

import math
from collections.abc import AsyncIterator

import structlog

from control_plane.caller import CallContext
from control_plane.convert.heartbeat import HeartbeatDecoder
from control_plane.convert.validation import (
    WORKER_ID,
    check_heartbeat,
    check_token,
    check_worker,
)
from control_plane.convert.versions import token_in
from control_plane.convert.workers import worker_in
from control_plane.routing.worker_exits import WorkerExitHandler
from control_plane.services.processes.worker_owners import WorkerOwners
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.protocols.observed_state import ObservedState
from control_plane.types.lease import FencingToken
from control_plane.types.worker import WorkerExit, WorkerInfo
from control_plane.view.crash_loops import MAX_OUTPUT_CHARS
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import InvalidWorker, RegistryUnavailable, WorkerNotFound
from yolopool.server.clock import Clock
from yolopool.server.state_machine import InvalidTransition
from yolopool.v1 import membership_pb2, membership_pb2_grpc

log = structlog.get_logger()

# Bounds of an exit report: requests in flight, characters of a request id, seconds.
_MAX_IN_FLIGHT, _MAX_REQUEST_ID_CHARS, _MAX_RESTART_S = 512, 128, 3600.0

# Tokens begin at the milliseconds of a clock. That may have been wrong; but each leader's is above
# those of workers, of which one that lies must not lead to where the store can't count any more.
_TOKENS_AHEAD_MS = 2**42


class MembershipService(membership_pb2_grpc.MembershipServiceServicer):
    def __init__(
        self,
        view: View,
        registry: ObservedState,
        worker_client: WorkerClient,
        worker_exits: WorkerExitHandler,
        clock: Clock,
        heartbeat_interval_s: float,
        lease_s: float,
    ) -> None:
        self._view = view
        self._registry = registry
        self._worker_client = worker_client
        self._worker_exits = worker_exits
        self._clock = clock
        self._owners = WorkerOwners(view, clock)
        self._heartbeat_interval_s = heartbeat_interval_s
        self._lease_s = lease_s

    async def Join(
        self, request: membership_pb2.JoinRequest, context: CallContext
    ) -> membership_pb2.JoinResponse:
        worker = worker_in(check_worker(request.worker), self._lease_until())
        token = self._highest_token(request)
        old = self._view.workers.get(worker.id)
        if old is None:
            check_room(self._view.workers, bounds.MAX_WORKERS, "workers")
        self._owners.check_joins(worker.id, worker.incarnation, context)
        try:
            self._view.join(worker, token)
        except InvalidTransition as error:
            raise InvalidWorker(f"{error}: restart the worker") from error
        if old is None or old.incarnation != worker.incarnation:
            log.info(
                "worker joined",
                worker=worker.id,
                incarnation=worker.incarnation,
                address=worker.address,
                device=worker.device,
                replaces_because=worker.replaces_because,
            )
            if old is not None:
                # The old process may still answer: its successor starts beside it.
                self._worker_client.retire(old)
        return membership_pb2.JoinResponse(
            cluster=self._view.desired.cluster,
            heartbeat_interval_s=self._heartbeat_interval_s,
            lease_s=self._lease_s,
        )

    async def Heartbeat(
        self, requests: AsyncIterator[membership_pb2.HeartbeatRequest], context: CallContext
    ) -> AsyncIterator[membership_pb2.HeartbeatResponse]:
        decoder = HeartbeatDecoder()
        async for request in requests:
            joined = self._view.workers.get(request.worker.id)
            if joined is None:
                raise WorkerNotFound(f"worker {request.worker.id!r} is not known here: join again")
            self._owners.check_beats(joined.id, context)
            token = self._highest_token(request)
            try:
                message = check_heartbeat(request.worker)
                worker = decoder.read(message, self._lease_until(), joined)
                self._view.apply_heartbeat(worker, token)
            except InvalidTransition as error:
                raise InvalidWorker(f"{error}: restart the worker") from error
            yield membership_pb2.HeartbeatResponse(lease_s=self._lease_s)

    async def Leave(
        self, request: membership_pb2.LeaveRequest, context: CallContext
    ) -> membership_pb2.LeaveResponse:
        self._owners.check_speaks_for(request.worker, context)
        worker = self._view.leave(request.worker, request.incarnation)
        if worker is not None:
            log.info("worker left", worker=worker.id, incarnation=worker.incarnation)
            await self._gone(worker)
        return membership_pb2.LeaveResponse()

    async def ReportExit(
        self, request: membership_pb2.ReportExitRequest, context: CallContext
    ) -> membership_pb2.ReportExitResponse:
        if not WORKER_ID.fullmatch(request.worker):
            raise InvalidWorker(f"{request.worker[:80]!r} is no worker id: see Join")
        self._owners.check_speaks_for(request.worker, context)
        # A process that ended before it chose its incarnation has none.
        valid = all(
            not id_ or WORKER_ID.fullmatch(id_) for id_ in (request.incarnation, request.io_process)
        )
        if len(request.requests) > _MAX_IN_FLIGHT or not valid:
            raise InvalidWorker(
                f"an exit report with {len(request.requests)} requests: give at most "
                f"{_MAX_IN_FLIGHT}, and an incarnation and I/O process that are valid as for Join"
            )
        self._owners.check_process(request.worker, request.incarnation, request.io_process)
        reported = request.exit
        exit = WorkerExit(
            worker=request.worker,
            device=request.device[:120],
            device_kind=request.device_kind[:16],
            ended=reported.ended[:200],
            last_output=reported.last_output[-MAX_OUTPUT_CHARS:],
            in_a_row=reported.in_a_row,
            ran_s=reported.ran_s,
            restart_in_s=_restart_in_s(reported.restart_in_s),
            unix_s=self._clock.unix(),
        )
        in_flight = frozenset(
            request_id
            for request_id in request.requests
            if len(request_id) <= _MAX_REQUEST_ID_CHARS
        )
        await self._worker_exits.report(exit, request.incarnation, in_flight, request.io_process)
        return membership_pb2.ReportExitResponse()

    def _highest_token(
        self, request: membership_pb2.JoinRequest | membership_pb2.HeartbeatRequest
    ) -> FencingToken | None:
        """None: there is none, or one that no clock has led to. It is passed over and not refused:
        clocks of control planes differ.
        """
        if not request.HasField("highest_token"):
            return None
        token = token_in(check_token(request.highest_token))
        highest_ms = 1000 * int(self._clock.unix()) + _TOKENS_AHEAD_MS
        return token if max(token.epoch, token.counter) <= highest_ms else None

    async def _gone(self, worker: WorkerInfo) -> None:
        self._worker_client.retire(worker)
        try:
            await self._registry.drop_worker(worker.id, worker.incarnation)
        except RegistryUnavailable:
            log.info("a worker's record stays until it expires", worker=worker.id)

    def _lease_until(self) -> float:
        return self._clock.monotonic() + self._lease_s


def _restart_in_s(seconds: float) -> float:
    return min(max(0.0, seconds), _MAX_RESTART_S) if math.isfinite(seconds) else 0.0

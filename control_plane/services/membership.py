"""Where workers join, send their heartbeats and leave; and the end of leases that ran out."""

import asyncio
import math
from collections.abc import AsyncIterator

import structlog

from control_plane.caller import CallContext
from control_plane.clock import Clock
from control_plane.convert.heartbeat import HeartbeatDecoder
from control_plane.convert.validation import WORKER_ID, check_worker
from control_plane.convert.versions import token_in
from control_plane.convert.workers import worker_in
from control_plane.routing.worker_exits import WorkerExitHandler
from control_plane.store.registry import ObservedState
from control_plane.types.worker import WorkerExit, WorkerInfo
from control_plane.view.crash_loops import MAX_OUTPUT_CHARS
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import InvalidWorker, RegistryUnavailable, WorkerNotFound
from yolopool.server.state_machine import InvalidTransition
from yolopool.v1 import membership_pb2, membership_pb2_grpc

log = structlog.get_logger()

EXPIRY_TICK_S = 0.25
# Of what a supervisor reports: requests in hand, characters of an id, seconds.
_MOST_IN_HAND, _LONGEST_REQUEST_ID, _LONGEST_RESTART_S = 512, 128, 3600.0


class MembershipService(membership_pb2_grpc.MembershipServiceServicer):
    def __init__(
        self,
        view: View,
        registry: ObservedState,
        link: WorkerClient,
        exit_handler: WorkerExitHandler,
        clock: Clock,
        heartbeat_interval_s: float,
        lease_s: float,
    ) -> None:
        self._view = view
        self._registry = registry
        self._link = link
        self._exit_handler = exit_handler
        self._clock = clock
        self._heartbeat_interval_s = heartbeat_interval_s
        self._lease_s = lease_s

    async def Join(
        self, request: membership_pb2.JoinRequest, context: CallContext
    ) -> membership_pb2.JoinResponse:
        worker = worker_in(check_worker(request.worker), self._lease_until())
        token = token_in(request.highest_token) if request.HasField("highest_token") else None
        old = self._view.workers.get(worker.id)
        self._view.join(worker, token)
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
                # A successor beside it joins while it still answers.
                self._link.retire(old)
        return membership_pb2.JoinResponse(
            cluster=self._view.desired.cluster,
            heartbeat_interval_s=self._heartbeat_interval_s,
            lease_s=self._lease_s,
        )

    async def Heartbeat(
        self, requests: AsyncIterator[membership_pb2.HeartbeatRequest], context: CallContext
    ) -> AsyncIterator[membership_pb2.HeartbeatResponse]:
        inventory = HeartbeatDecoder()
        async for request in requests:
            joined = self._view.workers.get(request.worker.id)
            if joined is None:
                raise WorkerNotFound(f"worker {request.worker.id!r} is not known here: join again")
            token = token_in(request.highest_token) if request.HasField("highest_token") else None
            try:
                worker = inventory.read(request.worker, self._lease_until(), joined)
                self._view.apply_heartbeat(worker, token)
            except InvalidTransition as error:
                raise InvalidWorker(f"{error}: restart the worker") from error
            yield membership_pb2.HeartbeatResponse(lease_s=self._lease_s)

    async def Leave(
        self, request: membership_pb2.LeaveRequest, context: CallContext
    ) -> membership_pb2.LeaveResponse:
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
        # A process that ended before it could draw one has no incarnation.
        known = all(
            not id_ or WORKER_ID.fullmatch(id_) for id_ in (request.incarnation, request.io_process)
        )
        if len(request.requests) > _MOST_IN_HAND or not known:
            raise InvalidWorker(
                f"an exit with {len(request.requests)} requests in hand: at most {_MOST_IN_HAND} "
                "are noted, of an incarnation as Join has it"
            )
        told, now = request.exit, self._clock.unix()
        is_number = math.isfinite(told.restart_in_s)
        restart_in_s = min(max(0.0, told.restart_in_s), _LONGEST_RESTART_S) if is_number else 0.0
        exit = WorkerExit(
            worker=request.worker,
            device=request.device[:120],
            device_kind=request.device_kind[:16],
            ended=told.ended[:200],
            last_output=told.last_output[-MAX_OUTPUT_CHARS:],
            in_a_row=told.in_a_row,
            ran_s=told.ran_s,
            restart_in_s=restart_in_s,
            unix_s=now,
        )
        in_hand = frozenset(one for one in request.requests if len(one) <= _LONGEST_REQUEST_ID)
        await self._exit_handler.report(exit, request.incarnation, in_hand, request.io_process)
        return membership_pb2.ReportExitResponse()

    async def expire(self) -> None:
        """Goes on for ever: ends the calls that lost workers still hold, so they go elsewhere."""
        while True:
            try:
                for worker in self._view.expire(self._clock.monotonic()):
                    log.warning("worker lost: its lease ran out", worker=worker.id)
                    await self._link.drop(worker)
            except Exception:
                log.exception("a lost worker was not let go: this is a bug")
            await asyncio.sleep(EXPIRY_TICK_S)

    async def _gone(self, worker: WorkerInfo) -> None:
        self._link.retire(worker)
        try:
            await self._registry.drop_worker(worker.id, worker.incarnation)
        except RegistryUnavailable:
            log.info("a worker's record stays until it runs out", worker=worker.id)

    def _lease_until(self) -> float:
        return self._clock.monotonic() + self._lease_s

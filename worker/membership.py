"""Tells the control planes about this worker: it joins, streams its inventory, and leaves.

Each control plane has a task, which retries while it is unreachable. The worker serves without
them, too.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import structlog

from yolopool.server.grpc_server import open_channel
from yolopool.tls.certificates import Certificates
from yolopool.transport import bearer
from yolopool.v1 import fleet_pb2, membership_pb2, membership_pb2_grpc, types_pb2
from yolopool.vocabulary import MAX_REJOIN_S

log = structlog.get_logger()
JOIN_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 0.5
REPORT_TIMEOUT_S = 2.0
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, MAX_REJOIN_S / 1.5  # with the jitter


class Membership:
    """`run` until cancelled. `poke` sends the inventory at once, after a change."""

    def __init__(
        self,
        control_planes: Sequence[str],
        inventory: Callable[[], fleet_pb2.Worker],
        highest_token: Callable[[], types_pb2.FencingToken],
        api_key: str = "",
        certificates: Certificates | None = None,
    ) -> None:
        self._certificates = certificates
        self._key = bearer(api_key)
        self._control_planes = control_planes
        self._inventory = inventory
        self._highest_token = highest_token
        self._pokes = {address: asyncio.Event() for address in control_planes}

    def poke(self) -> None:
        for event in self._pokes.values():
            event.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for address in self._control_planes:
                group.create_task(self._keep(address))

    async def leave(self) -> None:
        """Leaves all control planes at once. Does not wait for those that do not answer."""
        await asyncio.gather(*map(self._leave, self._control_planes))

    async def _keep(self, address: str) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                async with open_channel(address, self._certificates) as channel:
                    stub = membership_pb2_grpc.MembershipServiceStub(channel)
                    joined = await self._join(stub)
                    log.info("joined", control_plane=address, cluster=joined.cluster)
                    backoff_s = FIRST_BACKOFF_S
                    call = stub.Heartbeat(
                        self._beats(address, joined.heartbeat_interval_s), metadata=self._key
                    )
                    # Each heartbeat is answered, so a dead peer is noticed here, minutes before the
                    # kernel gives its connection up.
                    answer_limit_s = max(joined.lease_s, 2 * joined.heartbeat_interval_s)
                    while True:
                        async with asyncio.timeout(answer_limit_s):
                            if await call.read() is grpc.aio.EOF:
                                break
                    why = "the stream ended"
            except TimeoutError:
                why = "heartbeats are not answered"
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
            except Exception as error:  # a bug here must not cut the worker off for good
                log.error("membership failed", control_plane=address, exc_info=error)
                why = type(error).__name__
            log.info("not joined", control_plane=address, why=why, again_in_s=round(backoff_s, 2))
            # Jitter, so that the fleet does not rejoin a restarted control plane all at once.
            await asyncio.sleep(backoff_s * (0.5 + random.random()))
            backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)

    async def _join(
        self, stub: "membership_pb2_grpc.MembershipServiceAsyncStub"
    ) -> membership_pb2.JoinResponse:
        request = membership_pb2.JoinRequest(
            worker=self._inventory(), highest_token=self._highest_token()
        )
        return await stub.Join(request, timeout=JOIN_TIMEOUT_S, metadata=self._key)

    async def _beats(
        self, address: str, interval_s: float
    ) -> AsyncIterator[membership_pb2.HeartbeatRequest]:
        poke = self._pokes[address]
        while True:
            try:
                beat = membership_pb2.HeartbeatRequest(
                    worker=self._inventory(), highest_token=self._highest_token()
                )
            except Exception as error:
                # Raised here it would cancel the call, as if this worker were ending.
                log.error("no heartbeat", control_plane=address, exc_info=error)
                return
            yield beat
            try:
                async with asyncio.timeout(interval_s):
                    await poke.wait()
            except TimeoutError:
                pass
            poke.clear()

    async def _leave(self, address: str) -> None:
        worker = self._inventory()
        try:
            async with open_channel(address, self._certificates) as channel:
                stub = membership_pb2_grpc.MembershipServiceStub(channel)
                request = membership_pb2.LeaveRequest(
                    worker=worker.id, incarnation=worker.incarnation
                )
                await stub.Leave(request, timeout=LEAVE_TIMEOUT_S, metadata=self._key)
        except grpc.aio.AioRpcError as error:
            log.info("could not leave", control_plane=address, why=error.code().name)


async def report_exit(
    control_planes: Sequence[str],
    report: membership_pb2.ReportExitRequest,
    api_key: str = "",
    certificates: Certificates | None = None,
) -> None:
    """Tells all control planes at once that a process ended by itself. Does not wait for those that
    do not answer.
    """
    key = bearer(api_key)
    await asyncio.gather(
        *(_report(address, report, key, certificates) for address in control_planes)
    )


async def _report(
    address: str,
    report: membership_pb2.ReportExitRequest,
    key: Sequence[tuple[str, str]],
    certificates: Certificates | None,
) -> None:
    try:
        async with open_channel(address, certificates) as channel:
            stub = membership_pb2_grpc.MembershipServiceStub(channel)
            await stub.ReportExit(report, timeout=REPORT_TIMEOUT_S, metadata=key)
    except grpc.aio.AioRpcError as error:
        log.info("could not report", control_plane=address, why=error.code().name)

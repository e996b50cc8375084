"""The only way out to workers: a channel to each of their processes; failures as our own errors."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from control_plane.convert.versions import (
    batching_out,
    footprint_out,
    key_out,
    settings_out,
    token_out,
)
from control_plane.types.footprint import Footprint
from control_plane.types.lease import FencingToken
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import WorkerInfo
from yolopool.errors import DeadlineExceeded, WorkerLost, YolopoolError
from yolopool.server.grpc_server import CHANNEL_OPTIONS
from yolopool.status import error_from_rpc
from yolopool.v1 import bench_pb2, types_pb2, worker_pb2, worker_pb2_grpc

# A machine that vanished sends no reset: pings find out where the lease would take longer.
_KEEPALIVE = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 3_000))
# Codes by which the transport says that nobody answered.
_LOST = frozenset({"UNAVAILABLE", "CANCELLED"})

Answer = TypeVar("Answer")
# For a worker that goes to answer what it has.
LAST_ANSWERS_S = 10.0


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection to one process of a worker."""

    channel: grpc.aio.Channel
    stub: "worker_pb2_grpc.WorkerServiceAsyncStub"


class WorkerClient:
    """Every method raises the worker's typed error, WorkerLost or DeadlineExceeded."""

    def __init__(self) -> None:
        # By incarnation, then address: a restarted worker must not inherit its forebear's
        # reconnect back-off.
        self._roads: dict[str, dict[str, _Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turns = itertools.count()

    async def infer(
        self, worker: WorkerInfo, request: worker_pb2.InferRequest, timeout_s: float
    ) -> worker_pb2.InferResponse:
        address = worker.address
        if worker.io_addresses:
            address = worker.io_addresses[next(self._turns) % len(worker.io_addresses)]
        return await _typed(worker, self._stub(worker, address).Infer(request, timeout=timeout_s))

    async def assign(
        self,
        worker: WorkerInfo,
        version: ModelVersion,
        pack_uri: str,
        known: Footprint | None,
        pinned: bool,
        prefetch: bool,
        token: FencingToken,
        timeout_s: float,
    ) -> worker_pb2.AssignResponse:
        """Returns when the version is HOT (a prefetch: beside the device). The version has a pack;
        `known` is what was measured of it, if anything.
        """
        pack, made = version.made_by(worker.build)
        assert pack is not None, f"{version.key} is planned without a pack: this is a bug"
        batching = version.given.batching.get(worker.device_kind)
        backend, _, precision = made.variant.partition("/")
        request = worker_pb2.AssignRequest(
            token=token_out(token),
            version=key_out(version.key),
            settings=settings_out(version.settings),
            pack=worker_pb2.PackLocation(uri=pack_uri, digest=pack.digest),
            variant=types_pb2.Variant(
                backend=backend,
                precision=precision,
                device_kind=worker.device_kind,
                compute_class=made.compute_class,
            ),
            pin=pinned,
            reach=worker_pb2.REACH_WARM if prefetch else worker_pb2.REACH_HOT,
            footprint=footprint_out(known) if known is not None else None,
            batching=batching_out(batching) if batching is not None else None,
        )
        return await _typed(worker, self._stub(worker).Assign(request, timeout=timeout_s))

    async def release(
        self,
        worker: WorkerInfo,
        key: VersionKey,
        token: FencingToken,
        timeout_s: float,
        force: bool = False,
    ) -> worker_pb2.ReleaseResponse:
        """Returns when the memory is given back; with `force` open tickets are refused."""
        request = worker_pb2.ReleaseRequest(
            token=token_out(token), version=key_out(key), force=force
        )
        return await _typed(worker, self._stub(worker).Release(request, timeout=timeout_s))

    async def bench(
        self, worker: WorkerInfo, request: worker_pb2.BenchRequest, timeout_s: float
    ) -> AsyncGenerator[bench_pb2.BenchPoint, None]:
        """Each point of a sweep when it is measured; ends with the caller."""
        call: Any = self._stub(worker).Bench(request, timeout=timeout_s)
        try:
            while (point := await _typed(worker, call.read())) is not grpc.aio.EOF:
                yield point
        finally:
            call.cancel()

    async def drain(self, worker: WorkerInfo, token: FencingToken, timeout_s: float) -> int:
        """Returns how many tickets were left open when the time was up; the process ends then."""
        request = worker_pb2.DrainRequest(token=token_out(token))
        return (await _typed(worker, self._stub(worker).Drain(request, timeout=timeout_s))).left

    async def drop(self, worker: WorkerInfo) -> None:
        """Ends the calls that a lost worker still holds, with WorkerLost."""
        for road in self._roads.pop(worker.incarnation, {}).values():
            await road.channel.close()

    def retire(self, worker: WorkerInfo) -> None:
        """Sends a worker nothing new, and lets it answer what it has: it said that it goes."""
        for road in self._roads.pop(worker.incarnation, {}).values():
            self._close_gently(road)

    async def close(self) -> None:
        for roads in self._roads.values():
            for road in roads.values():
                await road.channel.close()
        for closing in self._closing:
            closing.cancel()
        self._roads.clear()

    def _stub(
        self, worker: WorkerInfo, address: str = ""
    ) -> "worker_pb2_grpc.WorkerServiceAsyncStub":
        address = address or worker.address
        roads = self._roads.setdefault(worker.incarnation, {})
        if address not in roads:
            for gone in roads.keys() - {worker.address, *worker.io_addresses}:
                self._close_gently(roads.pop(gone))
            options = (*CHANNEL_OPTIONS, *_KEEPALIVE)
            channel = grpc.aio.insecure_channel(address, options=options)
            roads[address] = _Connection(channel, worker_pb2_grpc.WorkerServiceStub(channel))
        return roads[address].stub

    def _close_gently(self, road: "_Connection") -> None:
        closing = asyncio.create_task(road.channel.close(LAST_ANSWERS_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _typed(worker: WorkerInfo, call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except asyncio.CancelledError:
        # Of the call alone: its channel was closed here, since the worker's lease ran out.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _lost(worker) from None
    except grpc.RpcError as error:
        raise _ours(worker, error_from_rpc(error)) from error


def _ours(worker: WorkerInfo, error: YolopoolError) -> YolopoolError:
    if error.reason in _LOST:
        return _lost(worker)
    if error.reason == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(
            f"worker {worker.id} did not answer in time: allow more, or add workers",
            details={"worker": worker.id},
        )
    return error


def _lost(worker: WorkerInfo) -> WorkerLost:
    return WorkerLost(
        f"worker {worker.id} at {worker.address} was lost before it answered: try again",
        details={"worker": worker.id},
    )

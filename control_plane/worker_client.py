"""The client for workers: a channel to each of their processes, and typed errors."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from control_plane.caller import TRACEPARENT, Trace
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
from yolopool.server.grpc_server import CHANNEL_OPTIONS, open_channel
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import Certificates
from yolopool.v1 import bench_pb2, types_pb2, worker_pb2, worker_pb2_grpc

# A machine that vanished sends no reset. Pings notice that before the lease runs out.
_KEEPALIVE = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 3_000))
# Codes of the transport when no worker answered.
_LOST = frozenset({"UNAVAILABLE", "CANCELLED"})

Answer = TypeVar("Answer")
# How long a worker that leaves may still answer its open calls.
LAST_ANSWERS_S = 10.0


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection to one process of a worker."""

    channel: grpc.aio.Channel
    stub: "worker_pb2_grpc.WorkerServiceAsyncStub"


class WorkerClient:
    """Every method raises the worker's own error, WorkerLost or DeadlineExceeded."""

    def __init__(self, certificates: Certificates | None = None) -> None:
        self._certificates = certificates
        # By incarnation, then address: a restarted worker starts without a reconnect back-off.
        self._connections: dict[str, dict[str, _Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turns = itertools.count()

    async def infer(
        self,
        worker: WorkerInfo,
        request: worker_pb2.InferRequest,
        timeout_s: float,
        trace: Trace | None = None,
    ) -> worker_pb2.InferResponse:
        address = worker.address
        if worker.io_addresses:
            address = worker.io_addresses[next(self._turns) % len(worker.io_addresses)]
        metadata = None if trace is None else ((TRACEPARENT, trace.text),)
        call = self._stub(worker, address).Infer(request, timeout=timeout_s, metadata=metadata)
        return await _answer(worker, call)

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
        """Returns when the version is HOT; a prefetch: when it is WARM.

        The version must have a pack. `known`: its measured footprint, if there is one.
        """
        pack, build = version.made_by(worker.build)
        assert pack is not None, f"{version.key} is planned without a pack: this is a bug"
        batching = version.given.batching.get(worker.device_kind)
        backend, _, precision = build.variant.partition("/")
        request = worker_pb2.AssignRequest(
            token=token_out(token),
            version=key_out(version.key),
            settings=settings_out(version.settings),
            pack=worker_pb2.PackLocation(uri=pack_uri, digest=pack.digest),
            variant=types_pb2.Variant(
                backend=backend,
                precision=precision,
                device_kind=worker.device_kind,
                compute_class=build.compute_class,
            ),
            pin=pinned,
            reach=worker_pb2.REACH_WARM if prefetch else worker_pb2.REACH_HOT,
            footprint=footprint_out(known) if known is not None else None,
            batching=batching_out(batching) if batching is not None else None,
        )
        return await _answer(worker, self._stub(worker).Assign(request, timeout=timeout_s))

    async def release(
        self,
        worker: WorkerInfo,
        key: VersionKey,
        token: FencingToken,
        timeout_s: float,
        force: bool = False,
    ) -> worker_pb2.ReleaseResponse:
        """Returns when the memory is free; with `force` the worker rejects its open requests."""
        request = worker_pb2.ReleaseRequest(
            token=token_out(token), version=key_out(key), force=force
        )
        return await _answer(worker, self._stub(worker).Release(request, timeout=timeout_s))

    async def bench(
        self, worker: WorkerInfo, request: worker_pb2.BenchRequest, timeout_s: float
    ) -> AsyncGenerator[bench_pb2.BenchPoint, None]:
        """Yields each point of a sweep when it is measured; closing it cancels the sweep."""
        call: Any = self._stub(worker).Bench(request, timeout=timeout_s)
        try:
            while (point := await _answer(worker, call.read())) is not grpc.aio.EOF:
                yield point
        finally:
            call.cancel()

    async def drain(self, worker: WorkerInfo, token: FencingToken, timeout_s: float) -> int:
        """Returns how many requests were still open when the time was up; the process then ends."""
        request = worker_pb2.DrainRequest(token=token_out(token))
        return (await _answer(worker, self._stub(worker).Drain(request, timeout=timeout_s))).left

    async def drop(self, worker: WorkerInfo) -> None:
        """Ends the open calls to a lost worker with WorkerLost."""
        for connection in self._connections.pop(worker.incarnation, {}).values():
            await connection.channel.close()

    def retire(self, worker: WorkerInfo) -> None:
        """A worker leaves: it gets no new calls, and may answer its open ones."""
        for connection in self._connections.pop(worker.incarnation, {}).values():
            self._close_gently(connection)

    def renew(self) -> None:
        """The certificate of this process changed: further calls connect anew with it."""
        for connections in self._connections.values():
            for connection in connections.values():
                self._close_gently(connection)
        self._connections.clear()

    async def close(self) -> None:
        for connections in self._connections.values():
            for connection in connections.values():
                await connection.channel.close()
        for closing in self._closing:
            closing.cancel()
        self._connections.clear()

    def _stub(
        self, worker: WorkerInfo, address: str = ""
    ) -> "worker_pb2_grpc.WorkerServiceAsyncStub":
        address = address or worker.address
        connections = self._connections.setdefault(worker.incarnation, {})
        if address not in connections:
            for unused in connections.keys() - {worker.address, *worker.io_addresses}:
                self._close_gently(connections.pop(unused))
            options = (*CHANNEL_OPTIONS, *_KEEPALIVE)
            channel = open_channel(address, self._certificates, options)
            connections[address] = _Connection(channel, worker_pb2_grpc.WorkerServiceStub(channel))
        return connections[address].stub

    def _close_gently(self, connection: "_Connection") -> None:
        closing = asyncio.create_task(connection.channel.close(LAST_ANSWERS_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _answer(worker: WorkerInfo, call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except asyncio.CancelledError:
        # If only the call was cancelled, `drop` closed its channel: the worker is lost.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _lost(worker) from None
    except grpc.RpcError as error:
        raise _typed(worker, error_from_rpc(error)) from error


def _typed(worker: WorkerInfo, error: YolopoolError) -> YolopoolError:
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

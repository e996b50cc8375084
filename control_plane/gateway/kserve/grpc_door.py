"""The protocol's gRPC service, on the port of the native ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from control_plane.gateway.dispatch import Caller
from control_plane.gateway.kserve.operations import (
    AT_ONCE,
    DOOR,
    Operations,
    no_settings,
    no_shared_memory,
)
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.kserve import grpc_service_pb2_grpc
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.intake import no_room
from yolopool.server.open_calls import typed_error

SERVICE = "inference.GRPCInferenceService"
_STREAM = f"/{SERVICE}/ModelStreamInfer"
# Of one stream, not answered yet: units of one image, or of so many bytes of a message.
WINDOW, UNIT_BYTES = AT_ONCE, 1024**2


class InferenceService(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, operations: Operations, budget: ByteBudget) -> None:
        self._operations = operations
        self._budget = budget

    async def ServerLive(
        self, request: kserve.ServerLiveRequest, context: Any
    ) -> kserve.ServerLiveResponse:
        return kserve.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: kserve.ServerReadyRequest, context: Any
    ) -> kserve.ServerReadyResponse:
        return kserve.ServerReadyResponse(ready=self._operations.is_ready())

    async def ModelReady(
        self, request: kserve.ModelReadyRequest, context: Any
    ) -> kserve.ModelReadyResponse:
        ready = await self._operations.model_ready(request.name, request.version, _caller(context))
        return kserve.ModelReadyResponse(ready=ready)

    async def ServerMetadata(
        self, request: kserve.ServerMetadataRequest, context: Any
    ) -> kserve.ServerMetadataResponse:
        return self._operations.server_metadata()

    async def ModelMetadata(
        self, request: kserve.ModelMetadataRequest, context: Any
    ) -> kserve.ModelMetadataResponse:
        caller = _caller(context)
        return await self._operations.model_metadata(request.name, request.version, caller)

    async def ModelConfig(
        self, request: kserve.ModelConfigRequest, context: Any
    ) -> kserve.ModelConfigResponse:
        caller = _caller(context)
        return await self._operations.model_config(request.name, request.version, caller)

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, context: Any
    ) -> kserve.ModelInferResponse:
        return await self._operations.infer(request, _caller(context))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[kserve.ModelInferRequest], context: Any
    ) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        stream = _Stream(self._operations, self._budget, requests, context)
        try:
            async for answer in stream.answers():
                yield answer
        finally:
            await stream.close()

    async def ModelStatistics(
        self, request: kserve.ModelStatisticsRequest, context: Any
    ) -> kserve.ModelStatisticsResponse:
        caller = _caller(context)
        return await self._operations.statistics(request.name, request.version, caller)

    async def RepositoryIndex(
        self, request: kserve.RepositoryIndexRequest, context: Any
    ) -> kserve.RepositoryIndexResponse:
        return await self._operations.index(request, _caller(context))

    async def RepositoryModelLoad(
        self, request: kserve.RepositoryModelLoadRequest, context: Any
    ) -> kserve.RepositoryModelLoadResponse:
        await self._operations.load(request, _caller(context))
        return kserve.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: kserve.RepositoryModelUnloadRequest, context: Any
    ) -> kserve.RepositoryModelUnloadResponse:
        await self._operations.unload(request, _caller(context))
        return kserve.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(
        self, request: kserve.SystemSharedMemoryStatusRequest, context: Any
    ) -> kserve.SystemSharedMemoryStatusResponse:
        return kserve.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryRegister(
        self, request: kserve.SystemSharedMemoryRegisterRequest, context: Any
    ) -> kserve.SystemSharedMemoryRegisterResponse:
        raise no_shared_memory()

    async def SystemSharedMemoryUnregister(
        self, request: kserve.SystemSharedMemoryUnregisterRequest, context: Any
    ) -> kserve.SystemSharedMemoryUnregisterResponse:
        return kserve.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: kserve.CudaSharedMemoryStatusRequest, context: Any
    ) -> kserve.CudaSharedMemoryStatusResponse:
        return kserve.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, request: kserve.CudaSharedMemoryRegisterRequest, context: Any
    ) -> kserve.CudaSharedMemoryRegisterResponse:
        raise no_shared_memory()

    async def CudaSharedMemoryUnregister(
        self, request: kserve.CudaSharedMemoryUnregisterRequest, context: Any
    ) -> kserve.CudaSharedMemoryUnregisterResponse:
        return kserve.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(
        self, request: kserve.TraceSettingRequest, context: Any
    ) -> kserve.TraceSettingResponse:
        raise no_settings()

    async def LogSettings(
        self, request: kserve.LogSettingsRequest, context: Any
    ) -> kserve.LogSettingsResponse:
        raise no_settings()


def add_to(operations: Operations, server: grpc.aio.Server, budget: ByteBudget) -> None:
    """Before the server starts. The bytes of streams count in `budget`."""
    service = InferenceService(operations, budget)
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)


def _caller(context: Any) -> Caller:
    metadata = context.invocation_metadata() or ()
    return Caller(DOOR, context.time_remaining(), metadata, context.peer())


def _units(request: kserve.ModelInferRequest, size_bytes: int) -> int:
    images = max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)
    return min(WINDOW, max(images, 1 + size_bytes // UNIT_BYTES))


class _Stream:
    """Requests of a stream run beside each other; answers come in their order. The room of a
    request is free again when its answer was taken, so that a slow reader stops the reading.
    """

    def __init__(
        self,
        operations: Operations,
        budget: ByteBudget,
        requests: AsyncIterator[kserve.ModelInferRequest],
        context: Any,
    ) -> None:
        self._operations = operations
        self._budget = budget
        self._requests = requests
        self._context = context
        self._room = asyncio.Semaphore(WINDOW)
        self._running: set[asyncio.Task[Any]] = set()
        # With the units that each takes; None: no more will come.
        self._in_order: asyncio.Queue[
            tuple[int, asyncio.Task[kserve.ModelStreamInferResponse]] | None
        ] = asyncio.Queue()

    async def answers(self) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        reader = asyncio.create_task(self._read())
        self._running.add(reader)
        while (item := await self._in_order.get()) is not None:
            units, task = item
            yield await task
            for _ in range(units):
                self._room.release()
        await reader

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                size_bytes = request.ByteSize()
                units = _units(request, size_bytes)
                for _ in range(units):
                    await self._room.acquire()
                task = asyncio.create_task(self._answer(request, size_bytes))
                del request  # the next may be long in coming
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                self._in_order.put_nowait((units, task))
        finally:
            self._in_order.put_nowait(None)

    async def _answer(
        self, request: kserve.ModelInferRequest, size_bytes: int
    ) -> kserve.ModelStreamInferResponse:
        response = kserve.ModelStreamInferResponse()
        held_bytes = size_bytes if self._budget.take(size_bytes) else 0
        try:
            if held_bytes < size_bytes:
                raise no_room(size_bytes)
            answer = await self._operations.infer(request, _caller(self._context))
        except Exception as error:
            # The stream has no place for a status: what there is of one is in the text.
            typed = typed_error(error, _STREAM)
            response.error_message = f"{typed.code}: {typed.reason}: {typed.message}"
            response.infer_response.id = request.id
            return response
        finally:
            self._budget.give(held_bytes)
        answer.parameters["triton_final_response"].bool_param = True
        response.infer_response.CopyFrom(answer)
        return response

"""What a pool says, as it is on the wire: workers, ledgers, models, boxes."""

from types import TracebackType

import grpc

from yolopool import status
from yolopool.v1 import (
    detection_pb2,
    detection_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

TIMEOUT_S = 10.0


class Fleet:
    """`async with Fleet(address) as fleet`; raises YolopoolError when the pool does not answer."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._fleet = fleet_pb2_grpc.FleetServiceStub(self._channel)
        self._detection = detection_pb2_grpc.DetectionServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def workers(self) -> list[fleet_pb2.Worker]:
        """The workers by id, with ledgers and replicas."""
        try:
            answer = await self._fleet.ListWorkers(
                fleet_pb2.ListWorkersRequest(), timeout=TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise status.error_from_rpc(error) from error
        return list(answer.workers)

    async def models(self) -> list[model_pb2.Model]:
        """The models by name, with their versions."""
        try:
            answer = await self._models.ListModels(model_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.error_from_rpc(error) from error
        return list(answer.models)

    async def detect(
        self, encoded: bytes, model: str, timeout_s: float
    ) -> detection_pb2.DetectResponse:
        """The boxes on one image at the model's own thresholds."""
        request = detection_pb2.DetectRequest(model=model, encoded=encoded)
        try:
            return await self._detection.Detect(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise status.error_from_rpc(error) from error


def is_serving(
    workers: list[fleet_pb2.Worker], models: list[model_pb2.Model], devices: int, demo: bool
) -> bool:
    """Whether so many workers are READY, all of them, and the demo model too if there is one."""
    ready = [one.state == fleet_pb2.WORKER_STATE_READY for one in workers]
    return len(ready) >= devices and all(ready) and (not demo or ready_names(models) != [])


def ready_names(models: list[model_pb2.Model]) -> list[str]:
    """Names that a Detect may ask for now: those with a READY version."""
    return [model.name for model in models if model.default_version]

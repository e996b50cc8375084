"""Where callers ask: a control plane by the public client, or one worker with nothing between."""

from pathlib import Path
from typing import Any

import grpc

from yolopool.client.async_client import AsyncClient
from yolopool.client.detections import Detections, from_response
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import Certificates
from yolopool.transport import CLIENT_OPTIONS
from yolopool.v1 import types_pb2, worker_pb2, worker_pb2_grpc

CALL_S = 5.0


class ControlPlaneDoor:
    """The public client of one control plane; `client` for everything but Detect."""

    def __init__(self, name: str, address: str, ca: Path | None = None) -> None:
        self.name = name
        self.client = AsyncClient(address, ca=ca)

    async def ask(self, model: str, image: bytes, timeout_s: float) -> Detections:
        return await self.client.detect(image, model=model, timeout_s=timeout_s)

    async def close(self) -> None:
        await self.client.close()


class WorkerDoor:
    """WorkerService of one worker, as a caller uses it that resolves replicas itself.

    Every method but `renew` and `close` raises YolopoolError.
    """

    def __init__(self, name: str, address: str, certificates: Certificates | None = None) -> None:
        self.name = name
        self._address, self._certificates = address, certificates
        self._open()

    def _open(self) -> None:
        if self._certificates is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=CLIENT_OPTIONS)
        else:
            shown = self._certificates.of_client()
            self._channel = grpc.aio.secure_channel(self._address, shown, options=CLIENT_OPTIONS)
        self._stub: Any = worker_pb2_grpc.WorkerServiceStub(self._channel)

    async def renew(self) -> None:
        """Connects anew, with the certificate as it is now."""
        await self.close()
        self._open()

    async def ask(self, model: str, image: bytes, timeout_s: float) -> Detections:
        version = types_pb2.VersionKey(model=model, version=1)
        request = worker_pb2.InferRequest(version=version, encoded=image)
        answer = await _typed(self._stub.Infer(request, timeout=max(timeout_s, 0.001)))
        return from_response(answer.result, image)

    async def inventory(self) -> worker_pb2.GetInventoryResponse:
        """What it holds, by its own word, and the highest token it has obeyed."""
        request = worker_pb2.GetInventoryRequest()
        answer: worker_pb2.GetInventoryResponse = await _typed(
            self._stub.GetInventory(request, timeout=CALL_S)
        )
        return answer

    async def release_nothing(self, token: types_pb2.FencingToken) -> None:
        """An order that changes nothing even if it is obeyed: the version is none."""
        version = types_pb2.VersionKey(model="chaos/none", version=1)
        request = worker_pb2.ReleaseRequest(token=token, version=version)
        await _typed(self._stub.Release(request, timeout=CALL_S))

    async def close(self) -> None:
        await self._channel.close()


async def _typed(call: Any) -> Any:
    try:
        return await call
    except grpc.RpcError as error:
        raise error_from_rpc(error) from None

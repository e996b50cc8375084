"""The shared server over real gRPC: errors keep their reason, unknown ones leak nothing."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from yolopool import errors
from yolopool.error_table import BY_REASON
from yolopool.server.grpc_server import GrpcServer
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, detection_pb2_grpc

NAME = "yolopool.v1.DetectionService"


class Failing(detection_pb2_grpc.DetectionServiceServicer):
    """Raises what the request id names."""

    async def Detect(
        self, request: detection_pb2.DetectRequest, context: object
    ) -> detection_pb2.DetectResponse:
        if request.request_id == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/data/store")
        if request.request_id == "bug":
            raise RuntimeError("secret /etc/passwd")
        raise BY_REASON[request.request_id](
            f"no {request.model}", retry_after_s=0.25, details={"model": request.model}
        )


class Peers(detection_pb2_grpc.DetectionServiceServicer):
    """Notes the connections that calls come by."""

    def __init__(self) -> None:
        self.seen = set[str]()

    async def Detect(
        self, request: detection_pb2.DetectRequest, context: Any
    ) -> detection_pb2.DetectResponse:
        self.seen.add(context.peer())
        return detection_pb2.DetectResponse()


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = GrpcServer([NAME])
    failing = Failing()  # type: ignore[abstract] # it has no streams
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(failing, server.server)
    port = await server.start("127.0.0.1", 0)
    await server.set_serving(True)
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def call(address: str, request_id: str) -> errors.YolopoolError:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Detect(
                detection_pb2.DetectRequest(model="shapes", request_id=request_id), timeout=5
            )
    return error_from_rpc(caught.value)


@pytest.mark.parametrize("reason", sorted(set(BY_REASON) - {"INTERNAL"}))
async def test_every_error_arrives_typed(address: str, reason: str) -> None:
    error = await call(address, reason)
    assert type(error) is BY_REASON[reason]
    assert (error.reason, error.message) == (reason, "no shapes")
    assert error.retryable == BY_REASON[reason].retryable
    assert error.retry_after_s == 0.25
    assert error.details == {"model": "shapes"}


async def test_an_unknown_error_is_internal_with_an_id_and_no_text(address: str) -> None:
    error = await call(address, "bug")
    assert isinstance(error, errors.Internal)
    assert error.details["incident"] in error.message
    assert "secret" not in error.message


async def test_no_server_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Detect(detection_pb2.DetectRequest(), timeout=5)
    error = error_from_rpc(caught.value)
    assert isinstance(error, errors.Unavailable)
    assert error.retryable


async def test_health_and_reflection(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=5)
        assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        names = [s.name async for r in asked for s in r.list_services_response.service]
    assert NAME in names


async def test_a_busy_port_is_an_error_that_says_so(address: str) -> None:
    host, port = address.split(":")
    with pytest.raises(OSError, match="is another server using it"):
        await GrpcServer([]).start(host, int(port))


async def test_a_full_disk_of_the_server_is_typed(address: str) -> None:
    error = await call(address, "full")
    assert isinstance(error, errors.DiskFull)
    assert error.details == {"place": "/data/store"}


async def test_callers_connect_anew_and_open_calls_go_on() -> None:
    server = GrpcServer([NAME], limits=GrpcLimits(connection_age_s=0.02))
    peers = Peers()  # type: ignore[abstract] # it has no streams
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(peers, server.server)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = aiter(watch)
        await anext(states)
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        async with asyncio.timeout(20):
            while len(peers.seen) < 3:
                await stub.Detect(detection_pb2.DetectRequest())
        await server.set_serving(True)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
    await server.stop(0)


async def test_a_request_that_the_server_has_no_memory_for_is_typed() -> None:
    def read(data: bytes) -> None:
        raise MemoryError

    async def never(request: object, context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(never, request_deserializer=read)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(NAME, {"Detect": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert isinstance(await call(f"127.0.0.1:{port}", "any"), errors.OutOfMemory)
    await server.stop(0)

"""The harness against a scripted gRPC server: reading a fleet, scoring images, counting errors."""

import argparse
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import grpc
import pytest

from benchmarks import detection_quality
from benchmarks.harness import dataset, loadgen, measure
from benchmarks.harness.fleet import is_serving, ready_names, register
from yolopool.client.async_client import AsyncClient
from yolopool.errors import QueueFull
from yolopool.server.grpc_server import GrpcServer
from yolopool.v1 import (
    detection_pb2,
    detection_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    types_pb2,
)


class Scripted(
    detection_pb2_grpc.DetectionServiceServicer,
    fleet_pb2_grpc.FleetServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """One ready worker, one ready model, the true boxes of the first image; `full` is refused."""

    async def Detect(
        self,
        request: detection_pb2.DetectRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> detection_pb2.DetectResponse:
        if request.model == "full":
            raise QueueFull("the queue is full: retry")
        return detection_pb2.DetectResponse(
            detections=[
                detection_pb2.Detection(
                    class_name=label.class_name,
                    confidence=0.9,
                    box=types_pb2.Box(
                        x_min=label.box[0],
                        y_min=label.box[1],
                        x_max=label.box[2],
                        y_max=label.box[3],
                    ),
                )
                for label in dataset.load()[0].labels
            ]
        )

    async def UploadArtifact(
        self,
        request_iterator: AsyncIterator[model_pb2.UploadArtifactRequest],
        context: grpc.aio.ServicerContext[object, object],
    ) -> model_pb2.UploadArtifactResponse:
        return model_pb2.UploadArtifactResponse(complete=True)

    async def RegisterModel(
        self,
        request: model_pb2.RegisterModelRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> model_pb2.RegisterModelResponse:
        bad = request.name == "bad"
        version = model_pb2.ModelVersion(
            version=types_pb2.VersionKey(model=request.name, version=1),
            state=model_pb2.VERSION_STATE_FAILED if bad else model_pb2.VERSION_STATE_READY,
            reason="ARTIFACT_UNSAFE" if bad else "",
            message="it would run code" if bad else "",
        )
        return model_pb2.RegisterModelResponse(version=version)

    async def ListWorkers(
        self,
        request: fleet_pb2.ListWorkersRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> fleet_pb2.ListWorkersResponse:
        worker = fleet_pb2.Worker(id="one", state=fleet_pb2.WORKER_STATE_READY)
        return fleet_pb2.ListWorkersResponse(workers=[worker])

    async def ListModels(
        self,
        request: model_pb2.ListModelsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> model_pb2.ListModelsResponse:
        ready = model_pb2.Model(name="shapes", default_version=1)
        return model_pb2.ListModelsResponse(models=[model_pb2.Model(name="new"), ready])


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    server = GrpcServer([])
    servicer = Scripted()  # type: ignore[abstract]  # other calls answer UNIMPLEMENTED
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server.server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(servicer, server.server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server.server)
    port = await server.start("127.0.0.1", 0)
    async with AsyncClient(f"127.0.0.1:{port}") as caller:
        yield caller
    await server.stop(0)


async def test_a_fleet_is_read(client: AsyncClient) -> None:
    workers, models = await client.workers(), await client.models()
    assert ready_names(models) == ["shapes"]
    assert is_serving(workers, models, devices=1, demo=True)
    assert is_serving(workers, [], devices=1, demo=False)
    assert not is_serving(workers, [], devices=1, demo=True)
    assert not is_serving(workers, models, devices=2, demo=True)
    draining = [replace(one, state="DRAINING") for one in workers]
    assert not is_serving(draining, models, devices=1, demo=True)


async def test_a_failed_import_stops_the_scenario_with_its_reason(client: AsyncClient) -> None:
    await register(client, "good", dataset.DEMO_WEIGHTS)
    with pytest.raises(RuntimeError, match=r"bad@1 is FAILED.*ARTIFACT_UNSAFE: it would run code"):
        await register(client, "bad", dataset.DEMO_WEIGHTS)


async def test_an_image_is_scored_from_the_answer(client: AsyncClient) -> None:
    options = detection_quality.flags().parse_args([])
    assert isinstance(options, argparse.Namespace)
    first, second = dataset.load()[:2]
    score = await detection_quality.score_image(client, first, "shapes", options)
    assert (score.found, score.false_positives) == (len(first.labels), 0)
    other = await detection_quality.score_image(client, second, "shapes", options)
    assert other.found < len(second.labels)


async def test_a_detecting_call_goes_round_images_and_models(client: AsyncClient) -> None:
    call = measure.detecting(client, [b"a", b"b"], ["shapes", "full"], timeout_s=10.0)
    assert set(await call(0)) == set(measure.STAGES)
    with pytest.raises(QueueFull):
        await call(1)


async def test_refusals_of_a_real_server_are_counted_by_reason(client: AsyncClient) -> None:
    async def call(number: int) -> Mapping[str, float]:
        await client.detect(b"image", "full" if number % 2 else "shapes", timeout_s=10.0)
        return {}

    load = await loadgen.open_loop(call, (0.0,) * 6, warmup_s=0.0, duration_s=0.2)
    assert load.errors == {"QUEUE_FULL": 3}
    assert load.latency_ms().count == 3
    assert load.generator_cpu_s > 0

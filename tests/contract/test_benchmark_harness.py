"""The harness against a scripted gRPC server: reading a fleet, scoring images, counting errors."""

import argparse
from collections.abc import AsyncIterator, Mapping

import grpc
import pytest

from benchmarks import detection_quality
from benchmarks.harness import dataset, loadgen
from benchmarks.harness.fleet import Fleet, is_serving, ready_names
from yolopool.errors import QueueFull, YolopoolError
from yolopool.serving import GrpcServer
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
async def fleet() -> AsyncIterator[Fleet]:
    server = GrpcServer([])
    servicer = Scripted()  # type: ignore[abstract]  # other calls answer UNIMPLEMENTED
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server.server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(servicer, server.server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server.server)
    port = await server.start("127.0.0.1", 0)
    async with Fleet(f"127.0.0.1:{port}") as reader:
        yield reader
    await server.stop(0)


async def test_a_fleet_is_read(fleet: Fleet) -> None:
    workers, models = await fleet.workers(), await fleet.models()
    assert ready_names(models) == ["shapes"]
    assert is_serving(workers, models, devices=1, demo=True)
    assert is_serving(workers, [], devices=1, demo=False)
    assert not is_serving(workers, [], devices=1, demo=True)
    assert not is_serving(workers, models, devices=2, demo=True)
    workers[0].state = fleet_pb2.WORKER_STATE_DRAINING
    assert not is_serving(workers, models, devices=1, demo=True)


async def test_no_server_is_a_typed_error() -> None:
    async with Fleet("127.0.0.1:1") as nobody:
        with pytest.raises(YolopoolError, match=r"."):
            await nobody.workers()


async def test_an_image_is_scored_from_the_answer(fleet: Fleet) -> None:
    options = detection_quality.flags().parse_args([])
    assert isinstance(options, argparse.Namespace)
    first, second = dataset.load()[:2]
    score = await detection_quality.score_image(fleet, first, "shapes", options)
    assert (score.found, score.false_positives) == (len(first.labels), 0)
    other = await detection_quality.score_image(fleet, second, "shapes", options)
    assert other.found < len(second.labels)


async def test_refusals_of_a_real_server_are_counted_by_reason(fleet: Fleet) -> None:
    async def call(number: int) -> Mapping[str, float]:
        await fleet.detect(b"image", "full" if number % 2 else "shapes", timeout_s=10.0)
        return {}

    load = await loadgen.open_loop(call, (0.0,) * 6, warmup_s=0.0, duration_s=0.2)
    assert load.errors == {"QUEUE_FULL": 3}
    assert load.latency_ms().count == 3
    assert load.generator_cpu_s > 0

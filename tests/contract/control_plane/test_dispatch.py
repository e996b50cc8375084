"""The methods of a control plane, called without a socket, behave as by gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.app import ControlPlane
from control_plane.gateway.dispatch import Caller
from control_plane.settings import Settings, read_settings
from control_plane.store.memory_registry import MemoryRegistry
from tests.waiting import becomes
from yolopool.errors import (
    DeadlineExceeded,
    Draining,
    Internal,
    InvalidDigest,
    ModelNotFound,
)
from yolopool.v1 import detection_pb2, events_pb2, model_pb2

MODELS = "/yolopool.v1.ModelService"
WATCH = "/yolopool.v1.EventService/WatchEvents"


def settings_in(folder: Path) -> Settings:
    return read_settings(
        ["--data-dir", str(folder), "--port", "0", "--http-port", "0", "--drain-grace-s", "0.2"]
    )


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    settings = settings_in(tmp_path)
    plane = ControlPlane(settings, MemoryRegistry())
    await plane.start()
    await becomes(lambda: plane.view.is_loaded)
    yield plane
    await plane.stop()


async def test_calls_answer_and_raise_typed_errors(plane: ControlPlane) -> None:
    call = plane.dispatch.unary
    assert not (
        await call(f"{MODELS}/ListModels", model_pb2.ListModelsRequest(), Caller("a"))
    ).models
    with pytest.raises(ModelNotFound):
        await call(f"{MODELS}/GetModel", model_pb2.GetModelRequest(model="no"), Caller("a"))
    request = detection_pb2.DetectRequest(model="no", encoded=b"x", request_id="mine")
    with pytest.raises(ModelNotFound) as raised:
        await call("/yolopool.v1.DetectionService/Detect", request, Caller("a", 5))
    assert raised.value.details["request_id"] == "mine"


async def test_a_stream_of_messages_is_taken(plane: ControlPlane) -> None:
    async def parts() -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        yield model_pb2.UploadArtifactRequest(header=model_pb2.UploadHeader(sha256="no"))

    with pytest.raises(InvalidDigest):
        await plane.dispatch.unary(f"{MODELS}/UploadArtifact", parts(), Caller("a"))


async def test_streams_answer_until_they_are_closed(plane: ControlPlane) -> None:
    events = plane.dispatch.stream(WATCH, events_pb2.WatchEventsRequest(follow=True), Caller("a"))
    assert (await anext(events)).kind == events_pb2.EVENT_KIND_TAKEOVER
    await events.aclose()  # type: ignore[attr-defined] # a generator


async def test_the_caller_is_not_kept_longer_than_it_waits(plane: ControlPlane) -> None:
    async def never() -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        await asyncio.sleep(60)
        yield model_pb2.UploadArtifactRequest()

    with pytest.raises(DeadlineExceeded):
        await plane.dispatch.unary(f"{MODELS}/UploadArtifact", never(), Caller("a", 0.05))


async def test_time_that_runs_out_within_is_not_the_callers(plane: ControlPlane) -> None:
    async def parts() -> AsyncIterator[model_pb2.UploadArtifactRequest]:
        header = model_pb2.UploadHeader(sha256="a" * 64, size_bytes=1)
        yield model_pb2.UploadArtifactRequest(header=header)
        raise TimeoutError

    with pytest.raises(Internal):
        await plane.dispatch.unary(f"{MODELS}/UploadArtifact", parts(), Caller("a", 60))


async def test_a_surprise_is_internal_with_an_id(plane: ControlPlane) -> None:
    with pytest.raises(Internal) as raised:
        await plane.dispatch.unary("/no.Service/Method", model_pb2.ListModelsRequest(), Caller("a"))
    assert "bug" in raised.value.message
    with pytest.raises(Internal) as raised:  # no message at all
        await plane.dispatch.unary(f"{MODELS}/GetModel", None, Caller("a"))  # type: ignore[arg-type]
    assert raised.value.details["incident"] in raised.value.message


async def test_a_process_that_stops_takes_no_new_calls(tmp_path: Path) -> None:
    plane = ControlPlane(settings_in(tmp_path), MemoryRegistry())
    await plane.start()
    await plane.stop()
    assert plane.dispatch.is_stopping
    events = plane.dispatch.stream(WATCH, events_pb2.WatchEventsRequest(follow=True), Caller("a"))
    with pytest.raises(Draining):
        await anext(events)
    with pytest.raises(Draining):
        await plane.dispatch.unary(
            f"{MODELS}/ListModels", model_pb2.ListModelsRequest(), Caller("a")
        )

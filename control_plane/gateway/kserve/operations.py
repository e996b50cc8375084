"""The calls of the protocol, for its gRPC and its HTTP door: translated and sent to Dispatch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from google.protobuf.message import Message

from control_plane.gateway.dispatch import Caller, Dispatch
from control_plane.gateway.kserve import model_description as description
from control_plane.gateway.kserve.image_tensors import is_heavy
from control_plane.gateway.kserve.infer_parameters import sticky_key_of
from control_plane.gateway.kserve.infer_request import Images, images_in, reference
from control_plane.gateway.kserve.infer_statistics import InferStatistics
from control_plane.gateway.kserve.result_tensors import infer_response
from control_plane.types.rollout.alias import point_for
from control_plane.types.version import ModelVersion
from control_plane.view.view import View
from yolopool import __version__
from yolopool.error_table import rebuild
from yolopool.errors import (
    InvalidOption,
    ModelImportFailed,
    ModelNotReady,
    NotFound,
    TenantConcurrency,
    TenantRate,
    Unimplemented,
    YolopoolError,
)
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.names import REQUEST_ID, parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2, model_pb2

_INFER, _LOAD, _UNLOAD = (
    f"/inference.GRPCInferenceService/{name}"
    for name in ("ModelInfer", "RepositoryModelLoad", "RepositoryModelUnload")
)
_DETECT = "/yolopool.v1.DetectionService/Detect"
_MODELS = "/yolopool.v1.ModelService"
_REQUEST_ID = "x-request-id"
_UNLOAD_DEPENDENTS = "unload_dependents"
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
DOOR = "kserve"
Ask = Callable[[str, Message, Caller], Awaitable[None]]
# Images of one request or stream that wait in the queue of a worker at once. It has 64 places: one
# caller alone never fills it, and leaves room for others.
AT_ONCE = 32
# An image of several waits no longer for its tenant's turn where the caller has no time limit.
MAX_PACE_S = 30.0
# So many are packed within milliseconds; more are packed beside the event loop.
_FEW_OBJECTS = 1000


class Operations:
    """Every call raises YolopoolError. `ask` raises what refuses a method to a caller."""

    def __init__(self, dispatch: Dispatch, ask: Ask, view: View, clock: Clock, rng: Random) -> None:
        self._dispatch = dispatch
        self._ask = ask
        self._view = view
        self._clock = clock
        self._rng = rng
        self._statistics = InferStatistics()

    def is_ready(self) -> bool:
        return self._view.is_loaded and not self._dispatch.is_stopping

    def server_metadata(self) -> kserve.ServerMetadataResponse:
        return kserve.ServerMetadataResponse(
            name="yolopool", version=__version__, extensions=EXTENSIONS
        )

    async def infer(
        self, request: kserve.ModelInferRequest, caller: Caller
    ) -> kserve.ModelInferResponse:
        # Before anything is told of the model, in a refusal of the tensors too.
        await self._ask(_INFER, request, caller)
        began_s = self._clock.monotonic()
        version = self._version(request)
        try:
            with self._dispatch.admitted():
                images = await self._images(request, version, caller)
                past_s = self._clock.monotonic() - began_s
                answers = await self._detect(images, _admitted(caller, images.timeout_s, past_s))
                response = await self._response(request, answers, images.outputs)
        except BaseException:  # whoever left is counted too
            if version is not None:
                key, seconds = version.key, self._clock.monotonic() - began_s
                self._statistics.failed(key.model, key.number, seconds)
            raise
        seconds = self._clock.monotonic() - began_s
        self._statistics.answered(answers, seconds, self._clock.unix())
        return response

    def _version(self, request: kserve.ModelInferRequest) -> ModelVersion | None:
        """The one that Detect will run; None if it will refuse."""
        try:
            ref = parse_ref(reference(request.model_name, request.model_version))
            point = point_for(ref, sticky_key_of(request.parameters), self._rng.random)
            return self._view.catalogue.find(ref, point)
        except YolopoolError:
            return None

    def _is_family(self, request: kserve.ModelInferRequest) -> bool:
        """Whether the member is to be chosen for each image."""
        ref = parse_ref(reference(request.model_name, request.model_version))
        return self._view.catalogue.family(ref) is not None

    async def _images(
        self, request: kserve.ModelInferRequest, version: ModelVersion | None, caller: Caller
    ) -> Images:
        name = str(version.key) if version is not None and not self._is_family(request) else ""
        task = version.pack.task if version is not None and version.pack is not None else ""
        if is_heavy(request):
            return await asyncio.to_thread(images_in, request, name, task, _request_id(caller))
        return images_in(request, name, task, _request_id(caller))

    async def _response(
        self,
        request: kserve.ModelInferRequest,
        answers: Sequence[detection_pb2.DetectResponse],
        outputs: tuple[str, ...] | None,
    ) -> kserve.ModelInferResponse:
        if sum(len(answer.detections) for answer in answers) > _FEW_OBJECTS:
            return await asyncio.to_thread(infer_response, request, answers, outputs)
        return infer_response(request, answers, outputs)

    async def _detect(
        self, images: Images, caller: Caller
    ) -> Sequence[detection_pb2.DetectResponse]:
        if len(images.requests) == 1:
            return [await self._dispatch.unary(_DETECT, images.requests[0], caller)]
        return await self._detect_all(images.requests, caller)

    async def _detect_all(
        self, requests: Sequence[detection_pb2.DetectRequest], caller: Caller
    ) -> Sequence[detection_pb2.DetectResponse]:
        """Beside each other. The first that fails ends the others, and its error names it."""
        room = asyncio.Semaphore(AT_ONCE)

        async def detect(one: detection_pb2.DetectRequest) -> detection_pb2.DetectResponse:
            async with room:
                return await self._paced(one, caller)

        tasks = [asyncio.create_task(detect(one)) for one in requests]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for position, task in enumerate(tasks):
                if task.done() and (error := task.exception()) is not None:
                    raise _of_image(error, position, len(tasks))
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _paced(
        self, image: detection_pb2.DetectRequest, caller: Caller
    ) -> detection_pb2.DetectResponse:
        """An image of several: it waits where its tenant's rate or concurrency makes it wait."""
        while True:
            try:
                answer: detection_pb2.DetectResponse = await self._dispatch.unary(
                    _DETECT, image, caller
                )
                return answer
            except (TenantRate, TenantConcurrency) as error:
                left_s, wait_s = caller.time_remaining(), error.retry_after_s or 0.0
                if wait_s >= (MAX_PACE_S if left_s is None else left_s):
                    raise
                await asyncio.sleep(wait_s)

    async def model_ready(self, name: str, version: str, caller: Caller) -> bool:
        try:
            model = await self._model(name, version, caller)
            return description.is_held(description.meant(model))
        except (NotFound, ModelNotReady, ModelImportFailed):
            return False

    async def model_metadata(
        self, name: str, version: str, caller: Caller
    ) -> kserve.ModelMetadataResponse:
        model = await self._model(name, version, caller)
        return description.metadata(model, description.meant(model))

    async def model_config(
        self, name: str, version: str, caller: Caller
    ) -> kserve.ModelConfigResponse:
        model = await self._model(name, version, caller)
        found = description.configuration(model, description.meant(model))
        return kserve.ModelConfigResponse(config=found)

    async def statistics(
        self, name: str, version: str, caller: Caller
    ) -> kserve.ModelStatisticsResponse:
        if name:
            model = await self._model(name, version, caller)
            description.meant(model)
            return self._statistics.of(description.imported(model))
        versions = [
            one for model in await self._models(caller) for one in description.imported(model)
        ]
        there = self._view.catalogue.models.values()
        self._statistics.keep(
            {(one.key.model, one.key.number) for versions in there for one in versions}
        )
        return self._statistics.of(versions)

    async def index(
        self, request: kserve.RepositoryIndexRequest, caller: Caller
    ) -> kserve.RepositoryIndexResponse:
        _check_repository(request.repository_name)
        return description.index(await self._models(caller), request.ready)

    async def load(self, request: kserve.RepositoryModelLoadRequest, caller: Caller) -> None:
        await self._ask(_LOAD, request, caller)
        _check_repository(request.repository_name)
        for name in request.parameters:
            raise Unimplemented(
                f"parameter {name[:80]!r} of a load is not served: files and settings of a model "
                "come by `yolopool models register`"
            )
        model = await self._model(request.model_name, "", caller)
        version = description.meant(model)
        key = version.version
        named = parse_ref(request.model_name)
        wanted = model_pb2.LoadModelRequest(
            model=str(named) if named.alias is not None else f"{key.model}@{key.version}",
            replicas=max(1, version.wanted_replicas),
            pin=version.pinned,
            wait=True,
        )
        await self._dispatch.unary(f"{_MODELS}/LoadModel", wanted, caller)

    async def unload(self, request: kserve.RepositoryModelUnloadRequest, caller: Caller) -> None:
        await self._ask(_UNLOAD, request, caller)
        _check_repository(request.repository_name)
        for name in request.parameters:
            if name != _UNLOAD_DEPENDENTS:
                raise InvalidOption(f"parameter {name[:80]!r} of an unload is not known")
        model = await self._model(request.model_name, "", caller)
        for version in model.versions:
            if version.wanted_replicas or version.replicas:
                key = version.version
                unwanted = model_pb2.UnloadModelRequest(
                    model=f"{key.model}@{key.version}", wait=True
                )
                await self._dispatch.unary(f"{_MODELS}/UnloadModel", unwanted, caller)

    async def _model(self, name: str, version: str, caller: Caller) -> model_pb2.Model:
        request = model_pb2.GetModelRequest(model=reference(name, version))
        model: model_pb2.Model = (
            await self._dispatch.unary(f"{_MODELS}/GetModel", request, caller)
        ).model
        return model

    async def _models(self, caller: Caller) -> Sequence[model_pb2.Model]:
        request = model_pb2.ListModelsRequest()
        listed: model_pb2.ListModelsResponse = await self._dispatch.unary(
            f"{_MODELS}/ListModels", request, caller
        )
        return listed.models


def no_shared_memory() -> YolopoolError:
    return Unimplemented("shared memory is not served: send tensors in requests")


def no_settings() -> YolopoolError:
    return Unimplemented(
        "settings of traces and logs are not served: they are set where the control plane starts"
    )


def _request_id(caller: Caller) -> str:
    given = next((value for key, value in caller.metadata if key == _REQUEST_ID), "")
    return given if REQUEST_ID.fullmatch(given) else ""


def _admitted(caller: Caller, timeout_s: float | None, past_s: float) -> Caller:
    """The caller inside of a call; its time limit began `past_s` ago."""
    limits = [caller.time_remaining(), None if timeout_s is None else max(0.0, timeout_s - past_s)]
    limit_s = min((limit for limit in limits if limit is not None), default=None)
    return Caller(caller.door, limit_s, caller.metadata, caller.peer(), is_admitted=True)


def _of_image(error: BaseException, position: int, count: int) -> BaseException:
    """A copy that names the image: others may wait for the same load, and get the same error."""
    if not isinstance(error, YolopoolError):
        return error
    return rebuild(
        error.code,
        error.reason,
        f"image {position} (counted from 0) of {count}: {error.message}",
        error.retryable,
        error.retry_after_s,
        {**error.details, "image": str(position)},
    )


def _check_repository(name: str) -> None:
    if name:
        raise InvalidOption(f"repository {name[:80]!r} is not known: there is one, leave it out")

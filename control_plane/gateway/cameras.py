"""The contract of DeepStack and CodeProject.AI Server, which camera systems speak: a picture in a
form, boxes in whole pixels back. docs/cameras.md names the clients it was taken from.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from control_plane.gateway.connection.envelope import caller_of
from control_plane.gateway.dispatch import Caller, Dispatch
from control_plane.gateway.problem import headers_of
from yolopool import __version__
from yolopool.codes import http_status
from yolopool.errors import ImageEmpty, InvalidOption, ModelNotFound, YolopoolError
from yolopool.v1 import detection_pb2

DETECT = "/yolopool.v1.DetectionService/Detect"
PREFIX = "/v1/vision/"
_DETECTION, _CUSTOM, _CUSTOM_LIST = (
    f"{PREFIX}{name}" for name in ("detection", "custom/", "custom/list")
)
DOOR = "cameras"
# Beside the picture clients send a threshold and a key.
_MAX_FIELDS = 20
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "min_confidence": {"type": "number", "minimum": 0, "maximum": 1},
                        "api_key": {"type": "string"},
                    },
                }
            }
        },
    }
}


class Prediction(BaseModel):
    """An object, in whole pixels."""

    label: str
    confidence: float
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class VisionAnswer(BaseModel):
    """Most confident first. Times are milliseconds."""

    success: bool
    message: str
    count: int
    predictions: list[Prediction]
    inferenceMs: int  # noqa: N815 - the contract's names
    processMs: int  # noqa: N815
    analysisRoundTripMs: int  # noqa: N815
    code: int
    command: str
    moduleId: str  # noqa: N815
    executionProvider: str  # noqa: N815
    canUseGPU: bool  # noqa: N815


class VisionError(BaseModel):
    """`code` is the status, `reason` what `docs/client.md` lists."""

    success: bool
    error: str
    code: int
    reason: str


class VisionModels(BaseModel):
    success: bool
    models: list[str]
    code: int
    command: str
    moduleId: str  # noqa: N815


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "It went wrong.", "model": VisionError}
    for status in (400, 404, 409, 413, 415, 422, 429, 500, 503, 504)
}
# The names of the models that a caller may see. Raises what refuses a caller.
Models = Callable[[Caller], Awaitable[Sequence[str]]]


def takes_form(method: str, path: str) -> bool:
    """Whether a call sends a picture in a form, and may send its key there."""
    is_detection = path == _DETECTION or (path.startswith(_CUSTOM) and path != _CUSTOM_LIST)
    return method == "POST" and is_detection


def camera_routes(dispatch: Dispatch, camera_model: str, models: Models) -> APIRouter:
    """The endpoints. `camera_model` serves where a client names no model; empty: the only one that
    is ready and that the caller may see.
    """
    router = APIRouter(tags=["cameras"])

    async def detection(request: Request) -> Response:
        """Objects on a picture, by the model for cameras."""
        return await _answered(_detect(dispatch, request, camera_model, models))

    async def custom(request: Request, model: str) -> Response:
        """Objects on a picture, by a model of this name."""
        return await _answered(_detect(dispatch, request, model.lower(), models))

    async def listed(request: Request) -> Response:
        """The names of the models."""
        found = VisionModels(
            success=True,
            models=list(await models(caller_of(request.scope, DOOR))),
            code=200,
            command="list-custom",
            moduleId="yolopool",
        )
        return JSONResponse(found.model_dump())

    async def status() -> Response:
        """That this server answers, and its release."""
        return JSONResponse(
            {"success": True, "message": __version__, "updateAvailable": False, "code": 200}
        )

    async def other(request: Request) -> Response:
        error = f"{request.url.path} is not served here: objects are found by /v1/vision/detection"
        return failure(ModelNotFound(error))

    for path in (f"{PREFIX}list", _CUSTOM_LIST):
        for verb in ("GET", "POST"):
            router.add_api_route(
                path,
                listed,
                methods=[verb],
                operation_id=f"VisionList{verb.title()}{'Custom' if 'custom' in path else ''}",
                response_model=None,
                responses={200: {"model": VisionModels, "description": "The names."}},
            )
    found = {200: {"model": VisionAnswer, "description": "What was found."}, **_ERRORS}
    for path, detect in (
        (_DETECTION, detection),
        (_CUSTOM + "{model:path}", custom),
    ):
        router.add_api_route(
            path,
            detect,
            methods=["POST"],
            operation_id=f"Vision{detect.__name__.title()}",
            response_model=None,
            responses=found,
            openapi_extra=_FORM,
        )
    for path in ("/v1/status/ping", "/v1/status/updateavailable"):
        router.add_api_route(path, status, methods=["GET"], include_in_schema=False)
    router.add_api_route(PREFIX + "{other:path}", other, methods=["POST"], include_in_schema=False)
    return router


async def _answered(work: Any) -> Response:
    """The answer, or the error in the form that the clients know."""
    try:
        return JSONResponse((await work).model_dump())
    except HTTPException as error:  # the form can't be read, or is too large
        typed = error if isinstance(error, YolopoolError) else InvalidOption(str(error.detail))
        return failure(typed, error.status_code)
    except YolopoolError as error:
        return failure(error)


def failure(error: YolopoolError, status: int = 0) -> Response:
    """An error in the form of the contract; `status`: another one than its code has."""
    status = status or http_status(error.code, error.reason)
    body = VisionError(success=False, error=error.message, code=status, reason=error.reason)
    return JSONResponse(body.model_dump(), status, headers_of(error))


async def _detect(dispatch: Dispatch, request: Request, model: str, models: Models) -> VisionAnswer:
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        caller = caller_of(request.scope, DOOR, api_key=_key_of(form))
        # Asked before anything that it sent is looked at.
        names = await models(caller)
        message = detection_pb2.DetectRequest(encoded=await _image_of(form))
        confidence = _confidence_of(form)
    message.model = model or _only(names)
    if confidence is not None:
        message.options.confidence = confidence
    return _predictions(await dispatch.unary(DETECT, message, caller))


def _key_of(form: FormData) -> str:
    key = form.get("api_key", "")
    return key.strip() if isinstance(key, str) else ""


async def _image_of(form: FormData) -> bytes:
    """The picture: the file `image`, or the only one, whatever its name."""
    files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if not files:
        raise ImageEmpty("no valid image file found: send the picture as the file `image`")
    return await files[0].read()


def _confidence_of(form: FormData) -> float | None:
    """None: the model's own. Some clients write numbers with the comma of their country."""
    said = str(form.get("min_confidence", "")).strip()
    if not said:
        return None
    try:
        value = float(said.replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InvalidOption(f"invalid value for min_confidence: {said[:80]!r} is not 0 to 1")
    return value


def _only(models: Sequence[str]) -> str:
    if len(models) == 1:
        return models[0]
    if not models:
        raise ModelNotFound("no model is ready: register one, or wait until it is imported")
    raise ModelNotFound(
        f"{len(models)} models are ready and none is set for cameras: start the control plane with "
        "--camera-model NAME, or ask /v1/vision/custom/NAME"
    )


def _predictions(result: detection_pb2.DetectResponse) -> VisionAnswer:
    if result.HasField("classification"):
        raise InvalidOption(
            f"{result.version.model} says what a picture is and finds no boxes: cameras need a "
            "model that detects"
        )
    predictions = [
        Prediction(
            label=one.class_name,
            confidence=round(one.confidence, 6),
            # Clients in Rust take no number below zero, which a turned box may have.
            x_min=max(0, int(one.box.x_min)),
            y_min=max(0, int(one.box.y_min)),
            x_max=int(one.box.x_max),
            y_max=int(one.box.y_max),
        )
        for one in result.detections
    ]
    labels = ", ".join(one.label for one in predictions[:3])
    timing = result.timing
    work_ms = timing.decode_ms + timing.preprocess_ms + timing.postprocess_ms
    return VisionAnswer(
        success=True,
        message=f"Found {labels}{'...' * (len(predictions) > 3)}" if labels else "No objects found",
        count=len(predictions),
        predictions=predictions,
        inferenceMs=round(timing.inference_ms),
        processMs=round(timing.inference_ms + work_ms),
        analysisRoundTripMs=round(timing.total_ms),
        code=200,
        command="detect",
        moduleId="yolopool",
        executionProvider=result.variant.backend,
        canUseGPU=result.variant.device_kind == "cuda",
    )

"""A model of the registry in the protocol's words: metadata, configuration, state. Pure."""

import json
from collections.abc import Iterable, Sequence

from control_plane.gateway.kserve.image_tensors import ENCODED, MAX_BATCH, PIXELS
from control_plane.gateway.kserve.infer_parameters import PRIORITIES
from control_plane.gateway.kserve.result_tensors import BYTES, FP32, INT32, SHAPES, outputs_of
from yolopool.errors import ModelImportFailed, ModelNotReady
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.kserve import model_config_pb2 as config
from yolopool.v1 import model_pb2, types_pb2

PLATFORM = "yolopool"
# Of the one that is required, without the batch.
_INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    ENCODED: (BYTES, (1,)),
    PIXELS: (FP32, (3, -1, -1)),
}
_TYPES = {
    BYTES: config.TYPE_STRING,
    FP32: config.TYPE_FP32,
    INT32: config.TYPE_INT32,
}
_HELD = (types_pb2.REPLICA_STATE_WARM, types_pb2.REPLICA_STATE_HOT)
READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
_NORMAL_LEVEL = PRIORITIES.index(types_pb2.PRIORITY_NORMAL)

Versions = Sequence[model_pb2.ModelVersion]


def meant(model: model_pb2.Model) -> model_pb2.ModelVersion:
    """The imported version that a reference means, of the reply to GetModel: the one that it names,
    which is then alone there, or the default. Raises ModelNotReady, ModelImportFailed.
    """
    default = (one for one in model.versions if one.version.version == model.default_version)
    found = next(default, model.versions[0])
    if found.state == model_pb2.VERSION_STATE_READY:
        return found
    said = f"{found.version.model}@{found.version.version}"
    if found.state == model_pb2.VERSION_STATE_FAILED:
        raise ModelImportFailed(
            f"{said} can't be used: its import failed with {found.reason}: {found.message}"
        )
    raise ModelNotReady(f"{said} is being imported: try again when it is", retry_after_s=1.0)


def imported(model: model_pb2.Model) -> list[model_pb2.ModelVersion]:
    """The versions that can be asked for, newest first."""
    return [one for one in model.versions if one.state == model_pb2.VERSION_STATE_READY]


def is_held(version: model_pb2.ModelVersion) -> bool:
    """Whether a worker has it, so that a request waits for no load."""
    return any(place.replica.state in _HELD for place in version.replicas)


def metadata(
    model: model_pb2.Model, version: model_pb2.ModelVersion
) -> kserve.ModelMetadataResponse:
    response = kserve.ModelMetadataResponse(
        name=model.name,
        versions=[str(one.version.version) for one in imported(model)],
        platform=PLATFORM,
    )
    for name, (datatype, dims) in _INPUTS.items():
        response.inputs.add(name=name, datatype=datatype, shape=[-1, *dims])
    for name in outputs_of(version.task):
        datatype, dims = SHAPES[name]
        response.outputs.add(name=name, datatype=datatype, shape=[-1, *dims])
    return response


def configuration(model: model_pb2.Model, version: model_pb2.ModelVersion) -> config.ModelConfig:
    settings = version.settings
    found = config.ModelConfig(
        name=model.name, platform=PLATFORM, backend=PLATFORM, max_batch_size=MAX_BATCH
    )
    found.version_policy.specific.versions.extend(one.version.version for one in imported(model))
    for name, (datatype, dims) in _INPUTS.items():
        # A request has one of them.
        tensor = found.input.add(name=name, data_type=_TYPES[datatype], dims=dims, optional=True)
        if name == PIXELS:
            tensor.format = config.ModelInput.FORMAT_NCHW
    for name in outputs_of(version.task):
        datatype, dims = SHAPES[name]
        found.output.add(name=name, data_type=_TYPES[datatype], dims=dims)
    found.dynamic_batching.priority_levels = len(PRIORITIES) - 1
    found.dynamic_batching.default_priority_level = _NORMAL_LEVEL
    found.model_transaction_policy.decoupled = False
    said = {
        "task": version.task,
        "class_names": json.dumps(list(version.class_names), ensure_ascii=False),
        "image_size": str(settings.image_size),
        "confidence": f"{settings.confidence:.7g}",
        "iou": f"{settings.iou:.7g}",
        "max_detections": str(settings.max_detections),
    }
    for name, text in said.items():
        found.parameters[name].string_value = text
    return found


def index(models: Iterable[model_pb2.Model], only_ready: bool) -> kserve.RepositoryIndexResponse:
    """Every version; or only those that a worker holds."""
    response = kserve.RepositoryIndexResponse()
    for model in models:
        for version in model.versions:
            state, reason = _state(version)
            if state == READY or not only_ready:
                number = str(version.version.version)
                response.models.add(name=model.name, version=number, state=state, reason=reason)
    return response


def _state(version: model_pb2.ModelVersion) -> tuple[str, str]:
    if version.state == model_pb2.VERSION_STATE_FAILED:
        return UNAVAILABLE, f"its import failed: {version.reason}: {version.message}"
    if version.state != model_pb2.VERSION_STATE_READY:
        return UNAVAILABLE, "it is being imported"
    if is_held(version):
        return READY, ""
    states = {place.replica.state for place in version.replicas}
    if types_pb2.REPLICA_STATE_ASSIGNED in states:
        return LOADING, version.waiting_reason
    if types_pb2.REPLICA_STATE_RELEASING in states:
        return UNLOADING, ""
    if version.wanted_replicas:
        return LOADING, version.waiting_reason
    return UNAVAILABLE, "unloaded: the first request loads it"

"""A ModelInferRequest to one Detect request an image. Pure."""

import re
from dataclasses import dataclass

from control_plane.gateway.kserve.image_tensors import images_of
from control_plane.gateway.kserve.infer_parameters import Parameters, parameters_of, sticky_key_of
from control_plane.gateway.kserve.result_tensors import MASKS, PROBABILITIES, SHAPES, outputs_of
from yolopool.errors import InvalidModelReference, InvalidOption
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.names import REQUEST_ID
from yolopool.v1 import detection_pb2

_CLASSIFICATION, _SHARED_MEMORY = "classification", "shared_memory_"
_SEGMENT, _CLASSIFY = "segment", "classify"
_MAX_OUTPUTS = 16
# Zeros before a number are Triton's names of folders.
_VERSION = re.compile(r"0{0,9}[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Images:
    """What is asked of Detect, in the order of the batch; `outputs` None: all of the task."""

    requests: list[detection_pb2.DetectRequest]
    outputs: tuple[str, ...] | None
    timeout_s: float | None


def reference(name: str, version: str) -> str:
    """The model reference of a name and a version of the protocol."""
    if not version:
        return name
    if not _VERSION.fullmatch(version):
        raise InvalidModelReference(
            f"version {version[:80]!r} of {name[:80]!r} is no number of a version: give one, or "
            "none for the default version"
        )
    return f"{name}@{int(version)}"


def images_in(
    request: kserve.ModelInferRequest, version: str, task: str, request_id: str = ""
) -> Images:
    """What to ask of this version, whose task it is, so that a batch has one version whatever is
    registered meanwhile; of a single image by an alias, whose rollout is to know of it, and without
    a version, what the request names. The task too is empty if there is none: Detect will say why.

    Raises InvalidTensor, InvalidOption, InvalidModelReference.
    """
    outputs = _outputs(request, task)
    parameters = parameters_of(request.parameters) if request.parameters else Parameters()
    first = detection_pb2.DetectRequest(
        priority=parameters.priority, sticky_key=sticky_key_of(request.parameters)
    )
    options = parameters.options
    if task == _SEGMENT:
        wanted = outputs is None or MASKS in outputs
        rle, none = detection_pb2.MASK_FORMAT_RLE, detection_pb2.MASK_FORMAT_NONE
        options.mask_format = rle if wanted else none
    elif task == _CLASSIFY and (outputs is None or PROBABILITIES in outputs):
        options.all_probabilities = True
    if options.ByteSize():
        first.options.CopyFrom(options)
    images = images_of(request, parameters.layout, parameters.order)
    named = reference(request.model_name, request.model_version)
    first.model = named if len(images) == 1 and ":" in named else version or named
    requests = [first]
    for _ in images[1:]:
        requests.append(another := detection_pb2.DetectRequest())
        another.CopyFrom(first)
    for index, (one, put) in enumerate(zip(requests, images, strict=True)):
        put(one)
        if request_id:
            one.request_id = _request_id(request_id, index, len(images))
    return Images(requests, outputs, parameters.timeout_s)


def _request_id(request_id: str, index: int, count: int) -> str:
    own = f"{request_id}/{index}" if count > 1 else request_id
    return own if REQUEST_ID.fullmatch(own) else request_id


def _outputs(request: kserve.ModelInferRequest, task: str) -> tuple[str, ...] | None:
    if not request.outputs:
        return None
    if len(request.outputs) > _MAX_OUTPUTS:
        raise InvalidOption(f"{len(request.outputs)} outputs are asked for: name each once")
    names = tuple(output.name for output in request.outputs)
    # Of a model that is not known Detect says so.
    known = outputs_of(task) or tuple(SHAPES)
    for output in request.outputs:
        if output.name not in known:
            raise InvalidOption(
                f"output {output.name[:80]!r} is not of a model with task {task}: there are "
                f"{', '.join(known)}"
            )
        for parameter in output.parameters:
            _refuse(parameter)
    if len(set(names)) != len(names):
        raise InvalidOption(f"an output is named twice in {', '.join(names)[:200]}: name each once")
    return names


def _refuse(parameter: str) -> None:
    if parameter == _CLASSIFICATION:
        raise InvalidOption(
            "classification strings are not served: take the outputs classes and scores, and the "
            "names from class_names of the model's configuration"
        )
    if parameter.startswith(_SHARED_MEMORY):
        raise InvalidOption("outputs in shared memory are not served: take the bytes")
    raise InvalidOption(f"parameter {parameter[:80]!r} of an output is not known: leave it out")

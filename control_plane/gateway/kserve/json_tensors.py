"""The protocol's HTTP bodies, JSON and after it bytes of tensors, to its messages and back. Pure.

A tensor is in the JSON (`data`: numbers, or images in base64), or its bytes follow the JSON in the
order of the inputs (`binary_data_size`).
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from google.protobuf.message import Message

from control_plane.gateway.kserve.image_tensors import ENCODED
from control_plane.gateway.kserve.result_tensors import packed
from yolopool.errors import InvalidArgument, InvalidOption, InvalidTensor
from yolopool.kserve import grpc_service_pb2 as kserve

# Parsing JSON, and writing it, hold up everything else in the process. The latter has three times
# as many bytes as its values.
MAX_JSON_BYTES = 4 * 1024**2
_MAX_VALUES_BYTES = 2 * 1024**2
_MAX_TENSORS = 16
_BINARY, _SIZE, _ALL_BINARY = "binary_data", "binary_data_size", "binary_data_output"
_OUTPUT_NUMBERS = {"FP32": "<f4", "INT32": "<i4"}
_BYTES = "BYTES"

# Which outputs are to be sent as bytes: by name, and all others.
Binary = tuple[Mapping[str, bool], bool]


def infer_request(
    name: str, version: str, body: bytes, json_bytes: int | None
) -> tuple[kserve.ModelInferRequest, Binary]:
    """`json_bytes`: how much of the body is JSON; None: all, 0: none, the body is one image.

    Raises InvalidTensor, InvalidArgument.
    """
    if json_bytes == 0:
        return _one_image(name, version, body), ({}, True)
    size = len(body) if json_bytes is None else json_bytes
    if not 0 <= size <= len(body):
        raise InvalidArgument(
            f"Inference-Header-Content-Length is {size}, and the body has {len(body)} bytes"
        )
    document = parsed(body[:size])
    request = kserve.ModelInferRequest(
        model_name=name, model_version=version, id=_text(document, "id")
    )
    parameters = _object(document, "parameters")
    everything = parameters.pop(_ALL_BINARY, False) is True
    _set_parameters(request.parameters, parameters)
    _add_inputs(request, _tensors(document, "inputs"), memoryview(body)[size:])
    return request, (_add_outputs(request, _tensors(document, "outputs")), everything)


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one. Raises InvalidArgument."""
    if len(body) > MAX_JSON_BYTES:
        raise InvalidArgument(
            f"the JSON has {len(body)} bytes, and at most {MAX_JSON_BYTES} are taken: send the "
            "bytes of tensors after it (Inference-Header-Content-Length, binary_data_size)"
        )
    try:
        document = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is no JSON: {str(error)[:120]}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("the body is no JSON object: send {...}")
    return document


def infer_body(response: kserve.ModelInferResponse, binary: Binary) -> tuple[bytes, int | None]:
    """The body, and how much of it is JSON; None: all. Raises InvalidOption for an answer that is
    too large for JSON.
    """
    named, everything = binary
    outputs, parts, left = [], [], _MAX_VALUES_BYTES
    for tensor, data in zip(response.outputs, response.raw_output_contents, strict=True):
        said: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if named.get(tensor.name, everything):
            said["parameters"] = {_SIZE: len(data)}
            parts.append(data)
        else:
            left -= len(data)
            if left < 0:
                raise InvalidOption(
                    f"the answer has more than {_MAX_VALUES_BYTES} bytes to be written as JSON: "
                    "ask for binary_data_output, for fewer outputs, or send fewer images"
                )
            said["data"] = _values(tensor.datatype, data)
        outputs.append(said)
    document = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({"id": response.id} if response.id else {}),
        "parameters": {
            key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for key, value in response.parameters.items()
        },
        "outputs": outputs,
    }
    head = json.dumps(document).encode()
    return b"".join([head, *parts]), len(head) if parts else None


def plain(message: Message) -> dict[str, Any]:
    """A message as the protocol has it in JSON: 64-bit numbers are numbers, enums their names, and
    messages that are not set are left out.
    """
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fields[field.name] = {
                key: plain(one) if isinstance(one, Message) else one for key, one in value.items()
            }
        elif field.is_repeated:
            fields[field.name] = [_plain_value(field, one) for one in value]
        elif field.message_type is None or message.HasField(field.name):
            fields[field.name] = _plain_value(field, value)
    return fields


def _plain_value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _one_image(name: str, version: str, body: bytes) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest(model_name=name, model_version=version)
    request.inputs.add(name=ENCODED, datatype=_BYTES, shape=[1, 1]).contents.bytes_contents.append(
        body
    )
    return request


def _add_inputs(
    request: kserve.ModelInferRequest, inputs: Sequence[dict[str, Any]], binary: memoryview
) -> None:
    at = 0
    for given in inputs:
        tensor = request.inputs.add(name=_text(given, "name"), datatype=_text(given, "datatype"))
        tensor.shape.extend(_shape(given.get("shape")))
        parameters = _object(given, "parameters")
        size = parameters.pop(_SIZE, None)
        _set_parameters(tensor.parameters, parameters)
        if size is None:
            request.raw_input_contents.append(_bytes(tensor, given.get("data")))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - at:
            left = len(binary) - at
            raise InvalidTensor(
                f"{_SIZE} of input {tensor.name[:80]!r} is {str(size)[:80]}, and {left} bytes "
                "follow the JSON for it"
            )
        request.raw_input_contents.append(bytes(binary[at : at + size]))
        at += size
    if at != len(binary):
        raise InvalidTensor(
            f"{len(binary) - at} bytes after the JSON belong to no input: say {_SIZE} of each"
        )


def _add_outputs(
    request: kserve.ModelInferRequest, outputs: Sequence[dict[str, Any]]
) -> Mapping[str, bool]:
    binary = {}
    for given in outputs:
        output = request.outputs.add(name=_text(given, "name"))
        parameters = _object(given, "parameters")
        if _BINARY in parameters:
            binary[output.name] = parameters.pop(_BINARY) is True
        _set_parameters(output.parameters, parameters)
    return binary


def _set_parameters(target: Any, given: Mapping[str, Any]) -> None:
    for spelt, value in given.items():
        name = _unicode(spelt)
        match value:
            case bool():
                target[name].bool_param = value
            case int() if 0 <= value < 2**64:
                target[name].uint64_param = value
            case int() if -(2**63) <= value < 0:
                target[name].int64_param = value
            case float():
                target[name].double_param = value
            case str():
                target[name].string_param = _unicode(value)
            case _:
                raise InvalidArgument(
                    f"parameter {name[:80]!r} is neither true, false, a number nor a text"
                )


def _bytes(tensor: kserve.ModelInferRequest.InferInputTensor, data: Any) -> bytes:
    """The values of `data`, as raw_input_contents has them."""
    if not isinstance(data, list):
        raise InvalidTensor(
            f"input {tensor.name[:80]!r} has no data: give a list, or {_SIZE} and the bytes after "
            "the JSON"
        )
    if tensor.datatype == _BYTES:
        images = [_decoded(one) for one in _leaves(data)]
        return b"".join(len(image).to_bytes(4, "little") + image for image in images)
    numbers = _flat(tensor, data)
    try:
        match tensor.datatype:
            case "UINT8" if {*map(type, numbers)} <= {int}:
                return bytes(numbers)
            case "FP32" if {*map(type, numbers)} <= {int, float}:
                return packed("f", numbers)
            case "UINT8" | "FP32":
                raise _no_numbers(tensor, "give numbers, and of UINT8 whole ones")
    except (ValueError, OverflowError):
        raise _no_numbers(tensor, "one is too large, or below 0") from None
    return b""  # refused for its datatype


def _flat(tensor: kserve.ModelInferRequest.InferInputTensor, data: list[Any]) -> list[Any]:
    """The values of nested lists, level by level: numpy would make room for the longest text
    as many times as there are values.
    """
    while data and isinstance(data[0], list):
        if {*map(type, data)} != {list}:
            raise _no_numbers(tensor, "rows and numbers stand side by side")
        data = list(chain.from_iterable(data))
    return data


def _no_numbers(tensor: kserve.ModelInferRequest.InferInputTensor, why: str) -> InvalidTensor:
    return InvalidTensor(f"data of input {tensor.name[:80]!r} are no {tensor.datatype}: {why}")


def _leaves(data: list[Any]) -> Iterator[Any]:
    """Of a list, or of one list a row."""
    for one in data:
        if isinstance(one, list):
            yield from one
        else:
            yield one


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidTensor("BYTES in JSON are images in base64: one is not") from None


def _values(datatype: str, data: bytes) -> list[Any]:
    if datatype != _BYTES:
        numbers: list[Any] = np.frombuffer(data, _OUTPUT_NUMBERS[datatype]).tolist()
        return numbers
    texts, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : end].decode())
        at = end
    return texts


def _tensors(document: Mapping[str, Any], name: str) -> Sequence[dict[str, Any]]:
    tensors = document.get(name, [])
    if not isinstance(tensors, list) or not all(isinstance(one, dict) for one in tensors):
        raise InvalidArgument(f"{name} is no list of objects")
    if len(tensors) > _MAX_TENSORS:
        raise InvalidArgument(f"{len(tensors)} {name}: a model has fewer")
    return tensors


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} is no object: give {{...}}")
    return dict(value)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} is no text: give one")
    return _unicode(value)


def _unicode(text: str) -> str:
    """Half a surrogate pair, which JSON may have, is no text of a message."""
    return text.encode("utf-8", "replace").decode()


def _shape(shape: Any) -> list[int]:
    whole = isinstance(shape, list) and all(
        isinstance(one, int) and not isinstance(one, bool) and abs(one) < 2**63 for one in shape
    )
    if not whole or len(shape) > _MAX_TENSORS:
        raise InvalidTensor(f"shape is {str(shape)[:80]}: give a list of whole numbers")
    return list(shape)

"""Input tensors of a ModelInferRequest to the images of Detect requests. Pure.

`image` is BYTES [n] or [n, 1]: encoded images. `images` is UINT8 (0 to 255) or FP32 (0 to 1)
pixels, NCHW or NHWC, of 3 channels or 1. What is sent is looked at before it is copied.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from yolopool.errors import InvalidTensor, YolopoolError
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.v1 import detection_pb2, types_pb2

ENCODED, PIXELS = "image", "images"
MAX_BATCH = 64
NCHW, NHWC = "NCHW", "NHWC"
RGB = types_pb2.CHANNEL_ORDER_RGB
_BYTES, _UINT8, _FP32 = "BYTES", "UINT8", "FP32"
_DATATYPES = {ENCODED: (_BYTES,), PIXELS: (_UINT8, _FP32)}
_ITEM_BYTES = {_UINT8: 1, _FP32: 4}
# Of values that were sent as numbers of the message: each costs a Python object.
_MAX_CONTENTS = 4 * 1024**2
# How far rounding may bring a value of an FP32 tensor beyond 0 to 1.
_TOLERANCE = 1e-3
_LENGTH_BYTES = 4
_FEW_IMAGES = 8
_SHARED_MEMORY = "shared_memory_"

Layout = str
Order: TypeAlias = types_pb2.ChannelOrder.ValueType
# Puts one image into a request.
Put = Callable[[detection_pb2.DetectRequest], None]
_U8 = npt.NDArray[np.uint8]


def is_heavy(request: kserve.ModelInferRequest) -> bool:
    """Whether `images_of` takes milliseconds: for pixels to convert, and many images to copy."""
    return any(
        tensor.datatype in _ITEM_BYTES or (len(tensor.shape) > 0 and tensor.shape[0] > _FEW_IMAGES)
        for tensor in request.inputs
    )


def images_of(request: kserve.ModelInferRequest, layout: Layout | None, order: Order) -> list[Put]:
    """The images of the batch, in order. Without a `layout` the shape tells it; where both fit, it
    is NCHW. Raises InvalidTensor.
    """
    tensor = _only_input(request)
    data = _raw(request, tensor)
    if tensor.name == ENCODED:
        return [_encoded(image) for image in _elements(tensor, data)]
    if isinstance(data, list):
        raise InvalidTensor(f"input {PIXELS!r} has no bytes_contents: send raw_input_contents")
    return _pixels(tensor, data, layout, order)


def _only_input(request: kserve.ModelInferRequest) -> kserve.ModelInferRequest.InferInputTensor:
    if len(request.inputs) != 1:
        raise InvalidTensor(
            f"the request has {len(request.inputs)} inputs: send one, {ENCODED!r} (BYTES) or "
            f"{PIXELS!r} (UINT8 or FP32)"
        )
    tensor = request.inputs[0]
    if tensor.datatype not in _DATATYPES.get(tensor.name, ()):
        raise InvalidTensor(
            f"input {tensor.name[:80]!r} of datatype {tensor.datatype[:20]!r} is not known: send "
            f"{ENCODED!r} as BYTES (encoded images) or {PIXELS!r} as UINT8 or FP32 (pixels)"
        )
    for name in tensor.parameters:
        if name.startswith(_SHARED_MEMORY):
            raise InvalidTensor("inputs in shared memory are not served: send the bytes")
        raise InvalidTensor(f"parameter {name[:80]!r} of an input is not known: leave it out")
    return tensor


def _raw(
    request: kserve.ModelInferRequest, tensor: kserve.ModelInferRequest.InferInputTensor
) -> bytes | list[bytes]:
    """The bytes of the input; of BYTES in `contents` its elements."""
    parts = len(request.raw_input_contents)
    if parts > 1 or (parts and tensor.HasField("contents")):
        raise InvalidTensor(
            "the request has one input and more than one content: send raw_input_contents with one "
            "element, or contents"
        )
    if parts:
        return request.raw_input_contents[0]
    contents = tensor.contents
    match tensor.datatype:
        case "BYTES":
            return _sequence(contents.bytes_contents)
        case "UINT8":
            return _numbers(contents.uint_contents, np.uint32).astype(np.uint8).tobytes()
        case _:
            return _numbers(contents.fp32_contents, np.float32).tobytes()


def _sequence(values: Sequence[bytes]) -> list[bytes]:
    if len(values) > MAX_BATCH:
        raise _too_many(len(values))
    return list(values)


def _numbers(values: Sequence[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    if len(values) > _MAX_CONTENTS:
        raise InvalidTensor(
            f"{len(values)} values in contents, and at most {_MAX_CONTENTS} are taken: send them "
            "in raw_input_contents"
        )
    numbers = np.fromiter(values, kind, len(values))
    if kind is np.uint32 and numbers.size and numbers.max() > 255:
        raise InvalidTensor(f"a UINT8 value is {numbers.max()}: give 0 to 255")
    return numbers


def _too_many(images: int) -> YolopoolError:
    return InvalidTensor(f"a batch of {images} images: send 1 to {MAX_BATCH} in one request")


def _batch(images: int) -> int:
    if not 1 <= images <= MAX_BATCH:
        raise _too_many(images)
    return images


def _elements(
    tensor: kserve.ModelInferRequest.InferInputTensor, data: bytes | list[bytes]
) -> list[bytes]:
    shape = list(tensor.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InvalidTensor(f"input {ENCODED!r} has shape {_said(shape)}: give [n] or [n, 1]")
    count = _batch(shape[0])
    images = data if isinstance(data, list) else _split(data, count)
    if len(images) != count:
        raise InvalidTensor(
            f"input {ENCODED!r} of shape {_said(shape)} has {len(images)} elements: send {count}"
        )
    return images


def _split(data: bytes, count: int) -> list[bytes]:
    """The elements of BYTES: each has its length before it, four bytes little-endian."""
    images, at = [], 0
    for index in range(count):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "little")
        if end > len(data) or start > len(data):
            raise InvalidTensor(
                f"element {index} of input {ENCODED!r} ends beyond its {len(data)} bytes: each has "
                "its length before it, four bytes little-endian"
            )
        images.append(data[start:end])
        at = end
    if at != len(data):
        raise InvalidTensor(
            f"input {ENCODED!r} has {len(data) - at} bytes beyond its {count} elements: let the "
            "shape count them"
        )
    return images


def _encoded(data: bytes) -> Put:
    def put(request: detection_pb2.DetectRequest) -> None:
        request.encoded = data

    return put


def _pixels(
    tensor: kserve.ModelInferRequest.InferInputTensor,
    data: bytes,
    layout: Layout | None,
    order: Order,
) -> list[Put]:
    shape = list(tensor.shape)
    layout = _layout(shape, layout)
    count = _batch(shape[0])
    item = _ITEM_BYTES[tensor.datatype]
    height, width, channels = shape[1:] if layout == NHWC else (*shape[2:], shape[1])
    each = height * width * channels * item
    if len(data) != each * count:
        raise InvalidTensor(
            f"input {PIXELS!r} of shape {_said(shape)} and {tensor.datatype} is {each * count} "
            f"bytes, and the request has {len(data)}"
        )
    if channels == 1:
        order = types_pb2.CHANNEL_ORDER_GRAY
    images: list[Put] = []
    for index in range(count):
        part = memoryview(data)[index * each : (index + 1) * each]
        values = _bytes_of(part, tensor.datatype, index)
        if layout == NCHW:
            values = _interleaved(values, height, width, channels)
        images.append(_raw_image(values.tobytes(), height, width, order))
    return images


def _layout(shape: list[int], layout: Layout | None) -> Layout:
    # Sides of 0 would let the others be of any length.
    if len(shape) != 4 or min(shape[1:]) < 1:
        raise InvalidTensor(
            f"input {PIXELS!r} has shape {_said(shape)}: give [n, 3, height, width] or [n, height, "
            "width, 3], or 1 for 3 for grey ones"
        )
    fits = {NCHW: shape[1] in (1, 3), NHWC: shape[3] in (1, 3)}
    found = layout or (NCHW if fits[NCHW] else NHWC)
    if not fits[found]:
        raise InvalidTensor(
            f"input {PIXELS!r} has shape {_said(shape)}, which as {found} has no 3 channels, and "
            "no 1: give RGB or grey pixels"
        )
    return found


def _bytes_of(part: memoryview, datatype: str, index: int) -> _U8:
    if datatype == _FP32:
        return _scaled(np.frombuffer(part, "<f4"), index)
    return np.frombuffer(part, np.uint8)


def _interleaved(values: _U8, height: int, width: int, channels: int) -> _U8:
    """CHW to HWC, a channel at a time: four times as fast as a transposed copy."""
    pixels = np.empty((height, width, channels), np.uint8)
    for channel, plane in enumerate(values.reshape(channels, height, width)):
        pixels[..., channel] = plane
    return pixels


def _scaled(values: npt.NDArray[np.float32], index: int) -> _U8:
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    # Written so that NaN is refused too.
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        said = (
            f"values from {low:g} to {high:g}" if math.isfinite(low + high) else "NaN or infinity"
        )
        raise InvalidTensor(
            f"image {index} of input {PIXELS!r} has {said}: FP32 pixels are 0 to 1 (of RGB / 255); "
            "send 0 to 255 as UINT8",
            details={"image": str(index)},
        )
    scaled = values * np.float32(255)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _raw_image(data: bytes, height: int, width: int, order: Order) -> Put:
    def put(request: detection_pb2.DetectRequest) -> None:
        raw = request.raw
        raw.data, raw.height, raw.width, raw.channel_order = data, height, width, order

    return put


def _said(shape: list[int]) -> str:
    return f"[{', '.join(map(str, shape[:8]))}{', ...' if len(shape) > 8 else ''}]"

"""Input tensors become the images of Detect, and hostile ones are refused with a sentence."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.gateway.kserve.image_tensors import MAX_BATCH, RGB, images_of, is_heavy
from yolopool.errors import InvalidTensor
from yolopool.kserve.grpc_service_pb2 import ModelInferRequest
from yolopool.v1 import detection_pb2, types_pb2

BGR, GRAY = types_pb2.CHANNEL_ORDER_BGR, types_pb2.CHANNEL_ORDER_GRAY


def request(
    name: str, datatype: str, shape: Sequence[int], raw: bytes | None = None, **more: Any
) -> ModelInferRequest:
    made = ModelInferRequest()
    made.inputs.add(name=name, datatype=datatype, shape=shape, **more)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


def all_packed(elements: list[bytes]) -> bytes:
    return packed(*elements)


def put(
    made: ModelInferRequest, layout: str | None = None, order: Any = RGB
) -> list[detection_pb2.DetectRequest]:
    found = []
    for one in images_of(made, layout, order):
        found.append(detection_pb2.DetectRequest())
        one(found[-1])
    return found


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_encoded_images_in_their_order(shape: list[int]) -> None:
    made = request("image", "BYTES", shape, packed(b"one", b"", b"three"))
    assert [one.encoded for one in put(made)] == [b"one", b"", b"three"]
    made = request("image", "BYTES", shape, contents={"bytes_contents": [b"1", b"2", b"3"]})
    assert [one.encoded for one in put(made)] == [b"1", b"2", b"3"]
    assert not is_heavy(made)
    assert is_heavy(request("image", "BYTES", [9]))


def pixels(n: int, height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(7).integers(0, 256, (n, height, width, channels), np.uint8)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("by_contents", [False, True])
def test_pixels_come_out_as_they_were(
    datatype: str, layout: str, channels: int, by_contents: bool
) -> None:
    images = pixels(4, 5, 7, channels)
    images[0], images[1] = 0, 255
    sent = images.transpose(0, 3, 1, 2) if layout == "NCHW" else images
    if datatype == "FP32":
        sent = sent.astype(np.float32) / 255
    if by_contents:
        field = "uint_contents" if datatype == "UINT8" else "fp32_contents"
        made = request("images", datatype, sent.shape, contents={field: sent.ravel().tolist()})
    else:
        made = request("images", datatype, sent.shape, sent.tobytes())
    assert is_heavy(made)
    found = put(made)
    assert [one.raw.data for one in found] == [one.tobytes() for one in images]
    assert {(one.raw.height, one.raw.width) for one in found} == {(5, 7)}
    assert {one.raw.channel_order for one in found} == {RGB if channels == 3 else GRAY}


def test_the_order_of_channels_is_passed_on() -> None:
    made = request("images", "UINT8", [1, 2, 2, 3], bytes(12))
    assert put(made, order=BGR)[0].raw.channel_order == BGR


def test_a_shape_that_could_be_both_is_nchw_unless_it_is_said() -> None:
    made = request("images", "UINT8", [1, 3, 9, 3], bytes(range(81)))
    assert (put(made)[0].raw.height, put(made)[0].raw.width) == (9, 3)
    spoken = put(made, "NHWC")[0].raw
    assert (spoken.height, spoken.width, spoken.data) == (3, 9, bytes(range(81)))


@given(st.integers(0, 255), st.floats(-5e-4, 5e-4))
def test_fp32_is_rounded_to_the_pixel_it_was(value: int, noise: float) -> None:
    sent = np.full((1, 3, 1, 1), value / 255 + noise, np.float32)
    (found,) = put(request("images", "FP32", [1, 3, 1, 1], sent.tobytes()))
    assert found.raw.data == bytes([value] * 3)


FOUR = [1, 3, 2, 2]
HUGE = 2**62
WRONG: dict[str, tuple[ModelInferRequest, str]] = {
    "no input": (ModelInferRequest(), "has 0 inputs"),
    "another name": (request("input0", "FP32", FOUR, bytes(48)), "'input0'"),
    "another datatype": (request("images", "FP64", FOUR, bytes(96)), "'FP64'"),
    "bytes as images": (request("images", "BYTES", [1], packed(b"x")), "is not known"),
    "pixels as image": (request("image", "UINT8", FOUR, bytes(12)), "is not known"),
    "no content": (request("image", "BYTES", [1]), "has 0 elements"),
    "no pixels": (request("images", "UINT8", FOUR), "12 bytes, and the request has 0"),
    "no batch": (request("image", "BYTES", [0], b""), "a batch of 0 images"),
    "no dimension": (request("image", "BYTES", [], packed(b"x")), "has shape []"),
    "two columns": (request("image", "BYTES", [1, 2], packed(b"x", b"y")), "[1, 2]"),
    "fewer elements": (request("image", "BYTES", [2], packed(b"x")), "element 1"),
    "more elements": (request("image", "BYTES", [1], packed(b"x", b"y")), "5 bytes beyond"),
    "negative": (request("image", "BYTES", [-1], packed(b"x")), "a batch of -1"),
    "huge batch": (request("image", "BYTES", [HUGE, 1], packed(b"x")), f"1 to {MAX_BATCH}"),
    "huge contents": (
        request("image", "BYTES", [99], contents={"bytes_contents": [b"x"] * 99}),
        "a batch of 99",
    ),
    "a length beyond the end": (
        request("image", "BYTES", [1], struct.pack("<I", 2**32 - 1) + b"x"),
        "ends beyond its 5 bytes",
    ),
    "a length cut off": (request("image", "BYTES", [1], b"\x01\x00"), "ends beyond"),
    "three dimensions": (request("images", "UINT8", [3, 2, 2], bytes(12)), "has shape [3, 2, 2]"),
    "a negative side": (request("images", "UINT8", [1, 3, -2, -2], bytes(12)), "[1, 3, -2, -2]"),
    "a huge side": (request("images", "UINT8", [1, 3, HUGE, HUGE], bytes(12)), "has 12"),
    "no channels": (request("images", "UINT8", [1, 2, 2, 4], bytes(16)), "no 3 channels"),
    "fewer bytes": (request("images", "FP32", FOUR, bytes(47)), "has 47"),
    "more bytes": (request("images", "FP32", FOUR, bytes(49)), "has 49"),
    "a hundred images": (request("images", "UINT8", [100, 3, 1, 1], bytes(300)), "of 100"),
    "a value above": (
        request("images", "UINT8", [1, 3, 1, 1], contents={"uint_contents": [0, 256, 0]}),
        "is 256",
    ),
    "shared memory": (
        request("image", "BYTES", [1], parameters={"shared_memory_region": {"string_param": "a"}}),
        "shared memory",
    ),
    "a parameter": (
        request("image", "BYTES", [1], packed(b"x"), parameters={"x": {"bool_param": True}}),
        "'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str) -> None:
    made, words = WRONG[what]
    with pytest.raises(InvalidTensor) as raised:
        put(made)
    assert words in raised.value.message


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize(
    "shape",
    [
        [1, 3, 0, 0],
        [1, 3, 0, 2**62],
        [1, 3, 2**62, 0],
        [1, 0, 2**40, 3],
        [1, 2**62, 0, 1],
        [64, 3, 2**62, 0],
        [1, 3, 2**40, 2**40],
    ],
)
def test_a_side_of_nothing_is_refused_however_long_the_other_is(
    datatype: str, shape: list[int]
) -> None:
    with pytest.raises(InvalidTensor, match="shape"):
        put(request("images", datatype, shape, b""))


def test_one_input_once() -> None:
    twice = request("image", "BYTES", [1], packed(b"x"))
    twice.inputs.add(name="image", datatype="BYTES", shape=[1])
    both = request("image", "BYTES", [1], packed(b"x"), contents={"bytes_contents": [b"x"]})
    again = request("image", "BYTES", [1], packed(b"x"))
    again.raw_input_contents.append(packed(b"y"))
    for made in (twice, both, again):
        with pytest.raises(InvalidTensor):
            put(made)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, 255, -0.1])
def test_fp32_beyond_its_range_is_refused_and_named(value: float) -> None:
    images = np.zeros((2, 3, 2, 2), np.float32)
    images[1, 2, 0, 1] = value
    with pytest.raises(InvalidTensor, match="image 1 of input 'images' has") as raised:
        put(request("images", "FP32", images.shape, images.tobytes()))
    assert raised.value.details["image"] == "1"


@given(
    st.sampled_from(["image", "images"]),
    st.sampled_from(["BYTES", "UINT8", "FP32"]),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 70), max_size=6),
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=9), max_size=70).map(lambda x: packed(*x)),
)
def test_whatever_is_sent_is_taken_or_refused(
    name: str, datatype: str, shape: list[int], raw: bytes
) -> None:
    try:
        found = put(request(name, datatype, shape, raw))
    except InvalidTensor:
        return
    assert 1 <= len(found) == shape[0] <= MAX_BATCH
    assert sum(len(one.encoded) + len(one.raw.data) for one in found) <= len(raw)

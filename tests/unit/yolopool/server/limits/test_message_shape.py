"""Messages that would cost many times their bytes are not read."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from yolopool.errors import InvalidArgument, MessageTooLarge
from yolopool.server.limits.message_shape import (
    MAX_NUMBERS_BYTES,
    MAX_PLAIN_BYTES,
    carries_bytes,
    check,
    input_of,
)
from yolopool.v1 import detection_pb2, model_pb2, types_pb2

MIB = 1024**2
DETECT = "/yolopool.v1.DetectionService/Detect"
LARGE = bytes(30 * MIB)


def _varint_of(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def kind(message: type[Message]) -> Descriptor:
    return _of(message.DESCRIPTOR)


def _of(found: Any) -> Descriptor:
    """By the type that the functions know it by."""
    descriptor: Descriptor = found
    return descriptor


def test_the_message_of_a_method_is_found() -> None:
    found = input_of(DETECT)
    assert found is not None
    assert found.full_name == "yolopool.v1.DetectRequest"
    assert input_of("/none.Service/Method") is None


@pytest.mark.parametrize(
    ("message", "may"),
    [
        (detection_pb2.DetectRequest, True),
        (detection_pb2.DetectStreamRequest, True),  # inside of a frame
        (model_pb2.UploadArtifactRequest, True),
        (model_pb2.RegisterModelRequest, False),
        (model_pb2.ListModelsRequest, False),
    ],
)
def test_methods_of_images_and_files_are_known(message: type[Message], may: bool) -> None:
    assert carries_bytes(kind(message)) is may


@pytest.mark.parametrize(
    "message",
    [
        detection_pb2.DetectRequest(model="a", encoded=LARGE),
        detection_pb2.DetectRequest(
            raw=types_pb2.RawImage(data=LARGE, height=1, width=1),
            options=detection_pb2.DetectOptions(
                classes=range(10_000),
                class_confidences=[
                    detection_pb2.ClassConfidence(class_id=number, confidence=0.5)
                    for number in range(10_000)
                ],
            ),
        ),
        detection_pb2.DetectStreamRequest(frame=detection_pb2.StreamFrame(encoded=LARGE)),
    ],
)
def test_large_images_are_taken(message: Message) -> None:
    check(message.SerializeToString(), _of(message.DESCRIPTOR))


def test_a_message_without_an_image_is_small() -> None:
    largest = model_pb2.GetModelRequest(model="x" * (MAX_PLAIN_BYTES - 5)).SerializeToString()
    assert len(largest) == MAX_PLAIN_BYTES
    check(largest, kind(model_pb2.GetModelRequest))
    with pytest.raises(MessageTooLarge, match="send less"):
        check(largest + b"\n\0", kind(model_pb2.GetModelRequest))


@pytest.mark.parametrize(
    ("said", "data"),
    [
        # Of 2 bytes each, and 50 once they are read: empty parts of a message.
        ("parts", bytes([34, *_varint_of(2_000_000), *b"\x12\0" * 1_000_000])),
        ("empty images", b"\x12\0" * 1_000_000),
        ("texts", b"\n\x80\x80\x80\x04" + bytes(8 * MIB)),
        ("unknown", b"\x7a\x80\x80\x80\x04" + bytes(8 * MIB)),
        ("numbers", bytes([34, *_varint_of(MAX_NUMBERS_BYTES + 9), 42,
                           *_varint_of(MAX_NUMBERS_BYTES + 4)]) + bytes(MAX_NUMBERS_BYTES + 4)),
    ],
)  # fmt: skip
def test_what_costs_more_than_its_bytes_is_refused(said: str, data: bytes) -> None:
    with pytest.raises(MessageTooLarge, match="beside its images"):
        check(data, kind(detection_pb2.DetectRequest))


@pytest.mark.parametrize(
    "data", [b"\x80" * 2 * MIB, b"\x0b" * 2 * MIB, b"\x12" + b"\xff" * 2 * MIB]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check(data, kind(detection_pb2.DetectRequest))

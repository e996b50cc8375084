"""What a request may say, at its bounds and beyond them."""

from collections.abc import Callable

import pytest

from control_plane.convert.validation import (
    MAX_CLASSES,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    check_architecture,
    check_options,
    check_placement,
    check_request_id,
    infer_request,
)
from yolopool.errors import ImageTooLarge, InvalidModelName, InvalidOption, YolopoolError
from yolopool.names import check_name
from yolopool.v1 import detection_pb2, types_pb2


def allowed(call: Callable[[], object], error: type[YolopoolError]) -> bool:
    try:
        call()
    except error:
        return False
    return True


def raw(height: int) -> types_pb2.RawImage:
    order = types_pb2.CHANNEL_ORDER_GRAY
    return types_pb2.RawImage(data=bytes(height), height=height, width=1, channel_order=order)


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
def test_images_are_bounded_in_bytes(size: int, fits: bool) -> None:
    encoded = detection_pb2.DetectRequest(encoded=b"x" * size)
    assert allowed(lambda: infer_request(encoded, encoded.encoded, 100, 0), ImageTooLarge) is fits
    pixels = detection_pb2.DetectRequest(raw=raw(size))
    assert allowed(lambda: infer_request(pixels, b"", 0, 100), ImageTooLarge) is fits


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_labels_have_bounds(more: int, fits: bool) -> None:
    many = {f"l{number}": "x" for number in range(MAX_LABELS + more)}
    long = "x" * (MAX_LABEL_CHARS + more)
    for placement in (
        types_pb2.Placement(labels=many),
        types_pb2.Placement(labels={long: "x"}),
        types_pb2.Placement(labels={"x": long}),
        types_pb2.Placement(pool=long),
    ):
        assert allowed(lambda one=placement: check_placement(one), InvalidOption) is fits  # type: ignore[misc]


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_classes_have_bounds(more: int, fits: bool) -> None:
    names = ["x"] * (MAX_CLASSES + more)
    assert allowed(lambda: check_architecture("", names), InvalidOption) is fits
    assert allowed(lambda: check_architecture("", ["x" * (1000 + more)]), InvalidOption) is fits
    options = detection_pb2.DetectOptions(classes=range(MAX_CLASSES + more))
    assert allowed(lambda: check_options(options), InvalidOption) is fits


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_names_have_a_longest(more: int, fits: bool) -> None:
    part = "x" * (63 + more)
    for name in (part, f"{part}/a", f"a/{part}"):
        assert allowed(lambda one=name: check_name(one), InvalidModelName) is fits  # type: ignore[misc]
    assert allowed(lambda: check_request_id("x" * (128 + more)), InvalidOption) is fits

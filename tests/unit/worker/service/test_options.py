"""Options of a request over the settings of its version."""

from typing import Any

import pytest

from worker.postprocess.results import MaskFormat
from worker.service import options
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2, types_pb2

SETTINGS = types_pb2.VersionSettings(image_size=640, image_sizes=[320, 1280])


def output_options(task: str, **fields: Any) -> options.OutputOptions:
    return options.output_options(detection_pb2.DetectOptions(**fields), SETTINGS, task)


def test_options_have_defaults() -> None:
    resolved = output_options("segment")
    assert (resolved.masks, resolved.top_k, resolved.image_size) == (MaskFormat.POLYGON, 5, 640)
    assert resolved.tiling is None
    assert (
        output_options("segment", mask_format=detection_pb2.MASK_FORMAT_RLE).masks is MaskFormat.RLE
    )
    tiled = output_options("detect", tiling=detection_pb2.Tiling(), image_size=1280)
    assert tiled.tiling is not None
    assert (tiled.image_size, tiled.tiling.size, tiled.tiling.overlap) == (1280, 1280, 0.2)


def test_a_rectangle_is_the_only_size_of_its_version() -> None:
    settings = types_pb2.VersionSettings(image_size=640, image_height=384, image_width=640)

    def resolved(**fields: Any) -> options.OutputOptions:
        return options.output_options(detection_pb2.DetectOptions(**fields), settings, "detect")

    assert resolved().image_size == (384, 640)
    tiling = resolved(tiling=detection_pb2.Tiling()).tiling
    assert tiling is not None
    assert tiling.size == 384
    with pytest.raises(InvalidOption, match="takes 640x384 alone"):
        resolved(image_size=640)


@pytest.mark.parametrize(
    ("task", "fields", "says"),
    [
        ("detect", {"mask_format": detection_pb2.MASK_FORMAT_RLE}, "models that segment"),
        ("pose", {"top_k": 3}, "models that classify"),
        ("obb", {"all_probabilities": True}, "models that classify"),
        ("classify", {"tiling": detection_pb2.Tiling()}, "models that find objects"),
        ("classify", {"top_k": 0}, "top_k is 0"),
        ("classify", {"top_k": 1001}, "top_k is 1001"),
        ("segment", {"mask_format": 9}, "mask_format 9"),
        ("detect", {"image_size": 500}, "320, 640, 1280"),
        ("detect", {"tiling": detection_pb2.Tiling(tile_size=16)}, "at least 32"),
        ("detect", {"tiling": detection_pb2.Tiling(overlap=0.95)}, "overlap is 0.95"),
    ],
)
def test_options_that_do_not_fit_are_refused(task: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        output_options(task, **fields)

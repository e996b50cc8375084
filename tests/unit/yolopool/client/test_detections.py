"""Detections as callers use them: index, iterate, draw, convert."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolopool.client.detections import Detection, Detections, Timing, from_response
from yolopool.v1 import detection_pb2


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (160, 120), (30, 30, 30))


@pytest.fixture
def found(picture: Image.Image) -> Detections:
    return Detections(
        xyxy=np.array([[10, 40, 60, 90], [70, 2, 150, 100]], dtype=np.float32),
        confidence=np.array([0.9, 0.5], dtype=np.float32),
        class_id=np.array([1, 0]),
        class_name=("square", "circle"),
        model="shapes@1",
        image_size=(160, 120),
        timing=Timing(total_ms=12.0),
        source=picture,
    )


def test_iteration_and_index(found: Detections) -> None:
    assert len(found) == 2
    assert [one.class_name for one in found] == ["square", "circle"]
    assert found[0] == Detection((10, 40, 60, 90), float(np.float32(0.9)), 1, "square")
    assert found[-1].class_name == "circle"
    with pytest.raises(IndexError):
        found[2]


def test_selection_keeps_the_rest(found: Detections) -> None:
    sure = found[found.confidence > 0.6]
    assert (len(sure), sure.class_name, sure.model) == (1, ("square",), "shapes@1")
    assert found[1:].class_name == ("circle",)
    assert found[[1, 0]].class_id.tolist() == [0, 1]
    assert len(found[found.confidence > 2]) == 0


def test_repr_counts(found: Detections) -> None:
    assert repr(found) == "<Detections of shapes@1: 1 square, 1 circle; 12.0 ms>"
    assert "nothing" in repr(found[:0])


def test_to_dict_is_json(found: Detections) -> None:
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["detections"][0]["xyxy"] == [10, 40, 60, 90]
    assert plain["timing"]["total_ms"] == 12.0


def test_plot_draws_on_a_copy(found: Detections, picture: Image.Image, tmp_path: Path) -> None:
    drawn = found.plot()
    before, after = np.asarray(picture), np.asarray(drawn)
    assert (before == 30).all()
    changed = (before != after).any(axis=2)
    assert changed[60, 10]  # the left edge of the first box
    assert not changed[110, 30]
    found.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.size == (160, 120)


def test_a_label_at_the_right_edge_is_whole() -> None:
    def label(x_min: float) -> int:
        """How many points above the box are drawn."""
        one = Detections(
            xyxy=np.array([[x_min, 60, x_min + 10, 90]], np.float32),
            confidence=np.array([0.9], np.float32),
            class_id=np.array([0]),
            class_name=("triangle",),
            image_size=(200, 100),
        )
        drawn = np.asarray(one.plot(Image.new("RGB", (200, 100))))
        return int(drawn[:60].any(axis=2).sum())

    assert label(190) == label(20) > 500


def test_plot_turns_a_photo_as_the_server_did(found: Detections) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 160)).save(buffer, "JPEG", exif=exif)
    assert found.plot(buffer.getvalue()).size == (160, 120)


def test_plot_shows_16_bits_by_their_high_byte(found: Detections) -> None:
    stream = io.BytesIO()
    levels = np.full((120, 160), 77 * 256, np.uint16)
    Image.fromarray(levels).save(stream, "PNG")
    assert found[:0].plot(stream.getvalue()).getpixel((3, 3)) == (77, 77, 77)


def test_plot_says_what_it_can_not_read(found: Detections) -> None:
    photo = io.BytesIO()
    Image.effect_noise((160, 120), 50).save(photo, "JPEG")
    for image in (b"\0\0\0\x1cftypheic no image", photo.getvalue()[:2000]):
        with pytest.raises(ValueError, match="give a whole one, or one in another format"):
            found.plot(image)


def test_damage_is_told(found: Detections) -> None:
    assert "image_damage" not in found.to_dict()
    response = detection_pb2.DetectResponse(image_damage="premature end of data segment")
    damaged = from_response(response, source=None)
    assert damaged.image_damage == damaged.to_dict()["image_damage"] == response.image_damage


def test_plot_refuses_another_image(found: Detections) -> None:
    with pytest.raises(ValueError, match="the results are for"):
        found.plot(Image.new("RGB", (10, 10)))

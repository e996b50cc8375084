"""Images for int8: from a folder to a file, and from there to what a graph takes."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from importer import builds
from importer.onnx_import.calibration import Images
from importer.onnx_import.graph import Input
from importer.refusal import CALIBRATION, ImportRefused
from yolopool.client import uploads
from yolopool.errors import InvalidOption


def packed(folder: Path, path: Path) -> Path:
    uploads.write_calibration_archive(folder, path)
    return path


UINT8 = Input("images", "uint8", 0, 0, 0)


def unheard(share: float) -> None: ...


def picture(path: Path, value: int = 200, height: int = 20, width: int = 40) -> Path:
    pixels = np.full((height, width, 3), (value, 0, 10), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_a_folder_is_packed_by_name_and_without_what_is_not_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "inside.png").mkdir(parents=True)
    (folder / "notes.txt").write_text("no image")
    (folder / "d.webp").write_bytes(b"is not decoded there")
    for name in ("b.JPG", "a.png", "c.jpeg"):
        picture(folder / name)
    once, again = (packed(folder, tmp_path / name) for name in ("1.zip", "2.zip"))
    assert once.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(once) as archive:
        assert archive.namelist() == ["a.png", "b.JPG", "c.jpeg"]
        assert archive.read("a.png") == (folder / "a.png").read_bytes()


def test_of_many_images_some_are_taken_from_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_CALIBRATION_IMAGES", 3)
    for value in range(8):
        picture(tmp_path / f"{value}.png", value * 20)
    path = packed(tmp_path, tmp_path / "some.zip")
    shown = [one["images"][0, 2, 16, 16] for one in Images(path, UINT8, (32, 32), unheard)]
    assert shown == [0, 60, 120]


@pytest.mark.parametrize("kind", ["missing", "empty", "a file"])
def test_a_folder_without_images_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    if kind == "empty":
        folder.mkdir()
    elif kind == "a file":
        folder.write_text("no folder")
    with pytest.raises(InvalidOption, match="has no images"):
        packed(folder, tmp_path / "some.zip")


@pytest.mark.parametrize(
    ("image", "blue"),
    [(UINT8, 200), (Input("images", "float32", 2, 32, 32), 200 / 255)],
)
def test_images_come_as_the_graph_takes_them(image: Input, blue: float, tmp_path: Path) -> None:
    """RGB, in the middle of a grey square, as often as its batch."""
    picture(tmp_path / "wide.png")
    path = packed(tmp_path, tmp_path / "some.zip")
    told = list[float]()
    images = Images(path, image, (32, 32), told.append)
    (given,) = images
    pixels: npt.NDArray[Any] = given["images"]
    assert pixels.shape == (max(1, image.batch), 3, 32, 32)
    assert pixels.dtype == image.dtype
    scale = 1 if image.dtype == "uint8" else 255
    np.testing.assert_allclose(pixels[-1, :, 16, 16] * scale, (10, 0, 200), atol=1e-4)
    np.testing.assert_allclose(pixels[-1, :, 7, 16] * scale, (114, 114, 114), atol=1e-4)
    assert pixels[-1, 2, 8, 0] == pytest.approx(blue)
    assert len(list(images)) == len(images) == 1  # and again
    assert told == [0, 0]


def compressed(path: Path, image: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(10**6))


def holding(*files: bytes) -> Callable[[Path, bytes], None]:
    def write(path: Path, image: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for number, data in enumerate(files):
                archive.writestr(f"{number}.png", data or image)

    return write


def of_damaged_bytes(path: Path, image: bytes) -> None:
    holding(b"")(path, image)
    path.write_bytes(path.read_bytes().replace(image[40:60], bytes(20)))


HOSTILE: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "no zip": (lambda path, _: path.write_bytes(b"PK\x03\x04 and no more"), "no zip archive"),
    "nothing": (lambda path, _: path.write_bytes(b""), "no zip archive"),
    "without images": (holding(), "0 files"),
    "too many": (holding(*[b"x"] * 1001), "1001 files"),
    "compressed": (compressed, "compressed"),
    "text": (holding(b"", b"GIF89a, or whatever"), r"'1\.png' is no JPEG or PNG"),
    "cut short": (holding(b"\x89PNG\r\n\x1a\n" + bytes(20)), "can"),
    "damaged": (of_damaged_bytes, "can't be read"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_archive_of_images_is_refused(kind: str, tmp_path: Path) -> None:
    write, words = HOSTILE[kind]
    path = tmp_path / "some.zip"
    write(path, picture(tmp_path / "image.png").read_bytes())
    with pytest.raises(ImportRefused, match=words) as caught:
        list(Images(path, UINT8, (32, 32), unheard))
    assert caught.value.reason == CALIBRATION
    assert "1 to 1000 JPEG or PNG" in caught.value.message


@pytest.mark.parametrize(
    ("of_onnx", "asked", "made"),
    [
        (False, ("", "", ""), ("torch", "fp32")),
        (False, ("torch", "", ""), ("torch", "fp32")),
        (True, ("", "", ""), ("onnx", "fp32")),
        (False, ("openvino", "bf16", ""), ("openvino", "bf16")),
        (True, ("", "int8", "some.zip"), ("onnx", "int8")),
    ],
)
def test_what_is_left_out_follows_from_the_file(
    of_onnx: bool, asked: tuple[str, str, str], made: tuple[str, str]
) -> None:
    found = builds.resolved(of_onnx, *asked, calibration_sha256="")
    assert (found["backend"], found["precision"]) == made


@pytest.mark.parametrize(
    ("of_onnx", "asked", "words"),
    [
        (False, ("", "int8", "some.zip"), "torch packs are not built in int8"),
        (False, ("tensorrt", "int8", "some.zip"), "tensorrt packs are not built in int8"),
        (False, ("onnx", "bf16", ""), "fp32 or int8"),
        (False, ("", "bf16", ""), "torch packs are not built in bf16"),
        (True, ("torch", "", ""), "torch does not run an ONNX file"),
        (False, ("tflite", "", ""), "tflite does not run this file"),
        (False, ("onnx", "int8", ""), "add --calibration FOLDER"),
        (False, ("openvino", "bf16", "some.zip"), "bf16 is not calibrated"),
    ],
)
def test_what_can_not_be_built_is_refused(
    of_onnx: bool, asked: tuple[str, str, str], words: str
) -> None:
    with pytest.raises(ImportRefused, match=words):
        builds.resolved(of_onnx, *asked, calibration_sha256="")

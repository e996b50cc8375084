"""Writes the picture of one image with its results drawn, whole or not at all."""

import io
import os
from contextlib import suppress
from pathlib import Path

from PIL import Image

from yolopool.client.detections import Detections
from yolopool.errors import InvalidOption

# Suffixes that an image in a folder keeps; others become PNG.
KEPT = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def check_not_source(image: Path, save: Path) -> None:
    """Raises InvalidOption if `save` is the image or video itself."""
    if save.exists() and image.exists() and save.samefile(image):
        raise InvalidOption(f"--save {save} would replace the image itself: give another name")


def check_file(image: Path, save: Path) -> None:
    """Raises InvalidOption if the picture of this image can't be written to `save`."""
    check_not_source(image, save)
    if not save.parent.is_dir():
        raise InvalidOption(f"--save {save}: there is no folder {save.parent}: create it first")
    try:
        _encoded(Image.new("RGB", (64, 64)), save)
    except ValueError as error:
        raise InvalidOption(
            f"--save {save}: no image format has this name ({error}): end it in .jpg or .png, or "
            "give a folder that exists"
        ) from error


def write(found: Detections, path: Path) -> None:
    """Writes the whole image with the results drawn on it, or changes nothing. Raises InvalidOption
    if it can't be drawn or has no such format, and OSError.
    """
    try:
        data = _encoded(found.plot(), path)
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise InvalidOption(f"{path} can't be drawn ({error}): try .png") from error
    # Beside it first, so that an earlier file is replaced by a whole one or stays.
    place = path.resolve()
    part = place.with_name(f".{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(place)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def _encoded(picture: Image.Image, path: Path) -> bytes:
    """Raises ValueError for a suffix of no format that is written."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ValueError(f"unknown ending {path.suffix!r}" if path.suffix else "no ending")
    file = io.BytesIO()
    # The fastest compression of PNG takes a tenth of the time of the usual one.
    more = {"compress_level": 1} if kind == "PNG" else {}
    picture.save(file, kind, **more)
    return file.getvalue()

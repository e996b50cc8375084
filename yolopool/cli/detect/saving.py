"""Where `detect --save` writes, settled before anything is detected, and the writing itself."""

import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from yolopool.client.detections import Detections
from yolopool.errors import InvalidOption

# Suffixes that an image in a folder keeps; others become PNG.
_KEPT = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def targets(images: Sequence[Path], save: Path) -> list[Path]:
    """A path for each image: `save` itself, or files in the folder `save`, which is created.

    In a folder no file is replaced: the next free name is taken. Raises InvalidOption, also for a
    file that is one of the images, and OSError for a folder that can't be created.
    """
    if len(images) == 1 and not save.is_dir():
        _check_file(images[0], save)
        return [save]
    if save.suffix.lower() in _KEPT and not save.is_dir():
        raise InvalidOption(f"--save {save}: there are {len(images)} images: give a folder")
    save.mkdir(parents=True, exist_ok=True)
    names = names_in_folder([image.name for image in images], lambda name: (save / name).exists())
    return [save / name for name in names]


def names_in_folder(images: Sequence[str], is_taken: Callable[[str], bool]) -> list[str]:
    """A free name for each image: a.png, else a-2.png, and so on."""
    given: list[str] = []
    for image in images:
        suffix = Path(image).suffix
        kept = suffix if suffix.lower() in _KEPT else ".png"
        stem, name, number = Path(image).stem, f"{Path(image).stem}{kept}", 1
        while name in given or is_taken(name):
            number += 1
            name = f"{stem}-{number}{kept}"
        given.append(name)
    return given


def _check_file(image: Path, save: Path) -> None:
    if save.exists() and image.exists() and save.samefile(image):
        raise InvalidOption(f"--save {save} would replace the image itself: give another name")
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
    picture.save(file, kind)
    return file.getvalue()

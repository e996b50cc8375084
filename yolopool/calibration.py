"""The images that an int8 build is calibrated by, as one file: a zip of them, the same for the same
images, so that an upload is known again.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from yolopool.errors import InvalidOption

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MOST_IMAGES = 1000
_EPOCH = (1980, 1, 1, 0, 0, 0)


def images_in(folder: Path) -> Sequence[Path]:
    """The image files of a folder, by name. Raises InvalidOption where there are none."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise InvalidOption(f"{folder} has no images: give a folder of {', '.join(ENDINGS)}")
    return found


def write(folder: Path, path: Path) -> None:
    """Writes the first MOST_IMAGES of a folder to a zip at `path`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for image in images_in(folder)[:MOST_IMAGES]:
            archive.writestr(zipfile.ZipInfo(image.name, _EPOCH), image.read_bytes())

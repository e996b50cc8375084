"""The images that an int8 build is calibrated by, as one file: a zip of them, the same for the same
images, so that an upload is known again.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from yolopool.errors import InvalidOption

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# What an importer decodes of a stranger's; and how many, since each takes a pass of the model, and
# more give no other ranges.
_CALIBRATING = (".jpg", ".jpeg", ".png")
MOST_IMAGES = 300
_EPOCH = (1980, 1, 1, 0, 0, 0)


def images_in(folder: Path, endings: Sequence[str] = ENDINGS) -> Sequence[Path]:
    """The image files of a folder, by name. Raises InvalidOption where there are none."""
    files = (path for path in folder.glob("*") if path.suffix.lower() in endings)
    found = sorted(path for path in files if path.is_file())
    if not found:
        raise InvalidOption(f"{folder} has no images: give a folder of {', '.join(endings)}")
    return found


def write(folder: Path, path: Path) -> None:
    """Writes the JPEG and PNG images of a folder to a zip at `path`; of more than MOST_IMAGES
    every second, third, ... Raises InvalidOption where there are none.
    """
    images = images_in(folder, _CALIBRATING)
    every = -(-len(images) // MOST_IMAGES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for image in images[::every]:
            archive.writestr(zipfile.ZipInfo(image.name, _EPOCH), image.read_bytes())

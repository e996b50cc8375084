"""The release before this one, to be run beside this: its wheel, without the demo models.

`tests/vendor/previous_release/README.md` says how the file is made, and when it is replaced.
"""

import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent / "vendor" / "previous_release"


def wheel() -> Path:
    (found,) = FOLDER.glob("yolopool-*.whl")
    return found


def unpacked(folder: Path) -> Path:
    """Its packages, in a new folder inside `folder`."""
    place = folder / "previous"
    with zipfile.ZipFile(wheel()) as archive:
        archive.extractall(place)
    return place

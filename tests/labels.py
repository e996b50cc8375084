"""The demo images' labels as training has them, a .txt an image."""

import json
from pathlib import Path

from PIL import Image

from tests.models import SHAPES


def write_labels(folder: Path) -> Path:
    """A line an object: class, then centre, width and height in shares of the image."""
    folder.mkdir(exist_ok=True)
    truths = json.loads((SHAPES / "images" / "gt.json").read_text())["images"]
    for name, objects in truths.items():
        with Image.open(SHAPES / "images" / name) as picture:
            width, height = picture.size
        lines = []
        for one in objects:
            left, top, right, bottom = one["xyxy"]
            centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            size = ((right - left) / width, (bottom - top) / height)
            lines.append(" ".join(map(str, (one["cls"], *centre, *size))))
        (folder / Path(name).with_suffix(".txt").name).write_text("\n".join(lines))
    return folder

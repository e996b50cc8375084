"""The YAML of an architecture as a person names it: a file, or one of the model library's by name.

Only read here; the importer checks it before it is used.
"""

import re
from pathlib import Path

_LIBRARY_NAME = re.compile(r"[a-z0-9_-]{1,60}\.yaml")
# yolo11n.yaml, yolov8x-p2.yaml: the letter that the library takes for the scale.
_SCALE = re.compile(r"\d([nslmxtcbe])(?:$|-|u)")


def read(path: str | Path) -> str:
    """The text of a file, with the scale that its name says where the text does not; or the name
    itself if there is no such file and the library may have it.

    Raises OSError if it can't be read, UnicodeDecodeError if it is no text.
    """
    file = Path(path)
    if not file.exists() and _LIBRARY_NAME.fullmatch(str(path)):
        return str(path)
    text = file.read_text(encoding="utf-8")
    scale = _SCALE.search(file.stem)
    if scale and re.search(r"^scales\s*:", text, re.M) and not re.search(r"^scale\s*:", text, re.M):
        return f"scale: {scale[1]}\n{text}"
    return text

"""What a tracker knows of a training run, as one text that is kept beside a version. Pure."""

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from yolopool.errors import SourceInvalid, SourceNotFound

MAX_BYTES = 12 * 1024
MODEL_SUFFIXES = (".pt", ".onnx")


def run_text(facts: Mapping[str, str], **groups: Mapping[str, Any]) -> str:
    """JSON of facts and groups (params, metrics): as many whole groups, and of the last the first
    values by name, as MAX_BYTES take.
    """
    kept: dict[str, Any] = dict(facts)
    for name, values in groups.items():
        kept[name] = {}
        for key in sorted(values):
            kept[name][key] = _plain(values[key])
            if len(json.dumps(kept)) > MAX_BYTES:
                del kept[name][key]
                kept["cut"] = "there was more than is kept"
                return json.dumps(kept, indent=1)
    return json.dumps(kept, indent=1)


def the_model(paths: Iterable[str], place: str) -> str:
    """The one model file of a folder: the only .pt or .onnx, or the only best.pt among several.

    Raises SourceNotFound and SourceInvalid.
    """
    found = sorted(path for path in paths if path.lower().endswith(MODEL_SUFFIXES))
    best = [path for path in found if PurePosixPath(path).name == "best.pt"]
    if not found:
        raise SourceNotFound(f"{place} has no .pt or .onnx file: name the file's own path")
    if len(found) > 1 and len(best) != 1:
        raise SourceInvalid(
            f"{place} has several model files ({', '.join(found[:5])}): name the path of one"
        )
    return found[0] if len(found) == 1 else best[0]


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value if not isinstance(value, str) else value[:500]
    return str(value)[:500]

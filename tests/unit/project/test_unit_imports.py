"""Unit tests are fast because none of them imports torch, by itself or through a module of ours: to
import it takes seconds.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "tests" / "unit"
HEAVY = {"onnxruntime", "openvino", "torch", "torchvision", "ultralytics"}
OURS = {"benchmarks", "control_plane", "importer", "tests", "worker", "yolopool"}
# Of a module itself: what a function imports is imported when it is called. A list of names may go
# over lines.
_IMPORT = re.compile(r"^import ([\w.]+)|^from ([\w.]+) import (\([^)]*\)|.*)", re.MULTILINE)


def imports_of(text: str) -> Iterator[str]:
    """Modules that a text imports, and names that it takes from one as if they were modules."""
    for found in _IMPORT.finditer(text):
        yield found[1] or found[2]
        if found[2]:
            yield from (f"{found[2]}.{name}" for name in re.findall(r"\w+", found[3]))


@cache
def heavy_of(module: str) -> str:
    """By which way a module of ours imports a heavy library; empty: it does not."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        path = path.with_suffix("") / "__init__.py"
    return way_of(path) if path.is_file() else ""


def way_of(path: Path) -> str:
    for name in imports_of(path.read_text()):
        root = name.partition(".")[0]
        if root in HEAVY:
            return f"{path.relative_to(ROOT)} > {root}"
        if root in OURS and (way := heavy_of(name)):
            return f"{path.relative_to(ROOT)} > {way}"
    return ""


def test_no_unit_test_imports_a_heavy_library() -> None:
    files = sorted(UNIT.rglob("*.py"))
    assert len(files) > 100
    assert not [way for path in files if (way := way_of(path))]


def test_a_way_through_others_is_found() -> None:
    assert heavy_of("worker.postprocess.heads").endswith("nms.py > torch")
    assert not heavy_of("worker.postprocess.outputs")

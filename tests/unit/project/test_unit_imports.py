"""Unit tests are fast because none of them imports torch: to import it takes seconds."""

import re
from pathlib import Path

HEAVY = re.compile(
    r"^\s*(?:import|from) (?:onnxruntime|openvino|torch|torchvision|ultralytics)\b", re.MULTILINE
)
UNIT = Path(__file__).parents[1]


def test_no_unit_test_imports_a_heavy_library() -> None:
    files = sorted(UNIT.rglob("*.py"))
    assert len(files) > 100
    assert not [path.name for path in files if HEAVY.search(path.read_text())]

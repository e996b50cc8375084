"""Each demo model finds what its labelled pictures show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHAPES = Path(__file__).parents[2] / "examples" / "shapes"


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["shapes", "shapes-v8", "shapes-26"])
def test_a_demo_model_is_accurate(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(SHAPES / "evaluate.py"),
            str(SHAPES / "models" / f"{name}.pt"),
            str(SHAPES / "images"),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    words = done.stdout.split()
    assert float(words[words.index("mAP50") + 1]) >= 0.9

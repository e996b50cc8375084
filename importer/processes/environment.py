"""The environment of the processes that read users' files: of the importer's own, only the paths of
the libraries. No key, no address, no token of the pool.
"""

import os
import sys
from pathlib import Path

from importer.job import at_home

# Limit for an image for calibration; OpenCV refuses larger ones.
_MAX_PIXELS = 100_000_000


def of_child(folder: Path) -> dict[str, str]:
    """All of it, for a process whose own folder this is."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {
        **kept,
        **at_home(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(_MAX_PIXELS),
        "NNCF_CI": "1",  # turns off telemetry
        "ULTRALYTICS_SAFE_LOAD": "1",
    }

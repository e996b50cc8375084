"""Prints mAP50 and mAP50-95 of a trained .pt on labelled pictures (PNG files and a gt.json).

    python examples/shapes/evaluate.py examples/shapes/models/shapes.pt examples/shapes/images

Average precision as the library's val has it: yolopool.evaluation.average_precision.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolopool.evaluation.average_precision import mean_precision

Array = NDArray[np.float64]


def read_truths(folder: Path) -> dict[str, Array]:
    """The truths of each picture, from the folder's gt.json."""
    content = json.loads((folder / "gt.json").read_text())
    return {
        name: np.array([[*o["xyxy"], o["cls"]] for o in objects], np.float64).reshape(-1, 5)
        for name, objects in content["images"].items()
    }


def load(model: Path) -> Any:
    """Loads a .pt as a model of the library, in its safe mode."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolo-config-"))
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    # Only the warm-up imports torchvision, which may not be installed.
    AutoBackend.warmup = lambda self, **_: None
    return YOLO(str(model))


def evaluate(model: Path, folder: Path, imgsz: int) -> tuple[float, float]:
    """(mAP50, mAP50-95) of the model on the folder's pictures."""
    truths = read_truths(folder)
    library = load(model)
    detections = {}
    for name in truths:
        result = library.predict(
            str(folder / name), imgsz=imgsz, conf=0.001, iou=0.7, device="cpu", verbose=False
        )
        detections[name] = np.asarray(result[0].boxes.data.numpy(), np.float64)
    return mean_precision(detections, truths)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print mAP50 and mAP50-95 of a .pt.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="PNG files and their gt.json")
    parser.add_argument("--imgsz", type=int, default=320)
    given = parser.parse_args()
    map50, map50_95 = evaluate(given.model, given.folder, given.imgsz)
    print(f"mAP50 {map50:.3f}  mAP50-95 {map50_95:.3f}")


if __name__ == "__main__":
    main()

"""The labelled test images of the demo model: what the scenarios send."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.hardware import ROOT
from benchmarks.harness.matching import Labelled

FOLDER = ROOT / "examples" / "shapes" / "images"
DEMO_WEIGHTS = ROOT / "examples" / "shapes" / "models" / "shapes.pt"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An encoded image and the boxes that are on it."""

    name: str
    encoded: bytes
    labels: tuple[Labelled, ...]


def load(folder: Path = FOLDER) -> tuple[LabelledImage, ...]:
    """The images that gt.json of the folder names, by name; FileNotFoundError if there is none."""
    path = folder / "gt.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: give a folder of images with a gt.json")
    truth = json.loads(path.read_text())
    return tuple(
        LabelledImage(
            name=name,
            encoded=(folder / name).read_bytes(),
            labels=tuple(
                Labelled(truth["names"][str(box["cls"])], tuple(box["xyxy"])) for box in boxes
            ),
        )
        for name, boxes in sorted(truth["images"].items())
    )


def encoded(folder: Path = FOLDER) -> tuple[bytes, ...]:
    """Only the bytes of the images, for scenarios about speed."""
    return tuple(image.encoded for image in load(folder))

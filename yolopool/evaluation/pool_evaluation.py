"""Runs a folder of labelled images through a pool, and says how good the model is on them.

It calls Detect as any client does, at bulk priority.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.model_records import ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation import tally
from yolopool.evaluation.labelled_images import LabelledImage, is_image, labelled
from yolopool.evaluation.tally import Evaluation, Found, Tally
from yolopool.evaluation.truths import OBB
from yolopool.vocabulary import LABEL_SUFFIXES

TIMEOUT_S = 120.0


def read_folder(images: Path, labels: Path, version: ModelVersion) -> tuple[LabelledImage, ...]:
    """The images in a folder and the folders in it, with what is on each. `labels`: a folder of
    .txt files (with a data.yaml or without), a COCO json, or the data.yaml whose labels are beside
    it. Raises InvalidOption.
    """
    if version.task not in tally.TASKS:
        raise InvalidOption(
            f"{version.name} is of the task {version.task or 'unknown'}, and boxes are evaluated: "
            f"give a model of {', '.join(tally.TASKS)}"
        )
    names = _files_in(images, "images", is_image)
    if not names:
        raise InvalidOption(f"{images} has no images")
    root = labels if labels.is_dir() else labels.parent
    named = _files_in(root, "labels", lambda name: name.lower().endswith(LABEL_SUFFIXES))
    if labels.suffix == ".json":
        named = [labels.name]
    files = {name: (root / name).read_bytes for name in named}
    return labelled(names, files, version.task, version.class_names)


def _files_in(folder: Path, what: str, wanted: Callable[[str], bool]) -> list[str]:
    if not folder.is_dir():
        raise InvalidOption(f"{folder} is no folder: give one of {what}")
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in files if wanted(path.name)]


def evaluate(
    client: Client,
    version: ModelVersion,
    folder: Path,
    images: Sequence[LabelledImage],
    progress: Callable[[float], None] = lambda _: None,
) -> Evaluation:
    """How good a version is on images of a folder. Raises what the first image that fails does."""
    counted = Tally(version.task, len(version.class_names))
    answers = client.detect_many(
        [folder / image.name for image in images],
        version.name,
        confidence=tally.CONFIDENCE,
        iou=tally.IOU,
        max_detections=tally.MAX_DETECTIONS,
        priority="bulk",
        timeout_s=TIMEOUT_S,
        masks="none" if version.task == "segment" else None,
    )
    for number, (image, answer) in enumerate(zip(images, answers, strict=True), 1):
        counted.add(found_of(answer.result()), image.truths)
        progress(number / len(images))
    return counted.evaluation()


def found_of(found: Detections) -> Found:
    boxes = found.xywhr if found.task == OBB and found.xywhr is not None else found.xyxy
    scores = found.confidence.astype(np.float64)
    return Found(boxes.astype(np.float64), scores, found.class_id, found.image_size)

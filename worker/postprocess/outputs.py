"""What a model gives for one image, as plain arrays on the host, in letterboxed pixels.

Made near the device; results.py turns it into results away from the device.
"""

from dataclasses import dataclass

import numpy as np

from worker.arrays import F32, I64
from yolopool.errors import AnswerNotFinite

NOT_FINITE = (
    "the model's answer to this image is not finite (NaN or infinite scores or boxes): its weights "
    "are broken, or its numbers overflow in the precision it runs in: check it where it was "
    "trained, or serve it in fp32"
)


@dataclass(frozen=True, slots=True)
class MaskParts:
    """What masks are made from: the objects' coefficients, float32 (n, nm), and the image's
    prototypes, float32 (nm, h, w), at a quarter of its resolution.
    """

    coefficients: F32
    prototypes: F32


@dataclass(frozen=True, slots=True)
class Keypoints:
    """float32 (n, k, 2 or 3): x, y and, where the model has it, visibility 0..1."""

    points: F32


@dataclass(frozen=True, slots=True)
class Rotations:
    """float32 (n, 5): centre x, y, width, height and the angle in radians."""

    boxes: F32


@dataclass(frozen=True, slots=True)
class Probabilities:
    """float32 (nc,), for the whole image; there are no boxes then."""

    values: F32


TaskOutput = MaskParts | Keypoints | Rotations | Probabilities


@dataclass(frozen=True, slots=True)
class NmsOptions:
    """The resolved options of one image: none is unset.

    `class_confidence` has a threshold (0..1) for each of the nc classes: the general one, or the
    class's own, and above 1 for classes that were not asked for. `masks`: MaskParts are wanted
    too, if the model has them.
    """

    class_confidence: tuple[float, ...]
    iou: float
    max_detections: int
    agnostic: bool
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes of one image after NMS, most confident first, in letterboxed pixels.

    xyxy: float32 (n, 4), upright boxes round rotated ones; confidence: float32 (n,);
    class_id: int64 (n,). `task_output` is what the task gives besides boxes; None for detect.
    `failure`: the answer to this image can't be used, and there are no boxes.
    """

    xyxy: F32
    confidence: F32
    class_id: I64
    task_output: TaskOutput | None = None
    failure: AnswerNotFinite | None = None


def not_finite() -> Candidates:
    """The answer to an image whose scores, boxes or other values are NaN or infinite."""
    return Candidates(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int64),
        failure=AnswerNotFinite(NOT_FINITE),
    )

"""What a model gives for one image, as plain arrays on the host, in letterboxed pixels.

Made near the device; results.py turns it into results away from the device.
"""

from dataclasses import dataclass

from worker.arrays import F32, I64


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
    """

    xyxy: F32
    confidence: F32
    class_id: I64
    task_output: TaskOutput | None = None

"""What a head gives of one image beside boxes, in letterboxed pixels, on the host.

Plain arrays, made at the device and turned into results away from it.
"""

from dataclasses import dataclass

from worker.arrays import F32, I64


@dataclass(frozen=True, slots=True)
class MaskParts:
    """What masks are made of: coefficients float32 (n, nm) of the objects, and the image's
    prototypes float32 (nm, h, w), at a quarter of its resolution.
    """

    coefficients: F32
    prototypes: F32


@dataclass(frozen=True, slots=True)
class Keypoints:
    """float32 (n, k, 2 or 3): x, y and, where the model says it, visibility 0..1."""

    points: F32


@dataclass(frozen=True, slots=True)
class Rotations:
    """float32 (n, 5): centre x, y, width, height and the angle in radians."""

    boxes: F32


@dataclass(frozen=True, slots=True)
class Probabilities:
    """float32 (nc,), of the whole image; there are no boxes then."""

    values: F32


Beside = MaskParts | Keypoints | Rotations | Probabilities


@dataclass(frozen=True, slots=True)
class NmsOptions:
    """Post-processing of one image; resolved, nothing is unset.

    `class_confidence` has one threshold a class (length nc, values 0..1): the general one,
    overridden for single classes, and above 1 for classes that are not asked for. `masks`: what
    masks are made of is wanted too, where the model has it.
    """

    class_confidence: tuple[float, ...]
    iou: float
    max_detections: int
    agnostic: bool
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes of one image after NMS, most confident first, in letterboxed pixels.

    xyxy: float32 (n, 4), of rotated boxes those round them; confidence: float32 (n,);
    class_id: int64 (n,). `beside`: what the model's task gives more; None of detect.
    """

    xyxy: F32
    confidence: F32
    class_id: I64
    task_output: Beside | None = None

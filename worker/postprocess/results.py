"""What is on one image, in its own pixels: from a pass's candidates to typed results.

Pure: numpy and OpenCV. Masks take milliseconds to seconds: call it away from the event loop and
from the device.
"""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from worker.arrays import F32, I64
from worker.postprocess import mask_encoding, masks, rotated_boxes
from worker.postprocess.mask_encoding import RunLengths
from worker.postprocess.outputs import Candidates, Keypoints, MaskParts, Probabilities, Rotations
from worker.preprocess import letterbox
from worker.preprocess.letterbox import Letterboxed, Origin
from yolopool.errors import DeadlineExceeded, InvalidOption

# Of one answer: noise for masks must not become a message that nobody can send.
MAX_MASK_BYTES = 16 * 1024**2

Polygons = tuple[F32, ...]
Mask = Polygons | RunLengths


class MaskFormat(enum.StrEnum):
    """How masks are told: not at all, by outlines, or pixel by pixel."""

    NONE = "none"
    POLYGON = "polygon"
    RLE = "rle"


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one image, most confident first, in pixels of the whole original image.

    xyxy: float32 (n, 4); confidence: float32 (n,); class_id: int64 (n,). Of their tasks: `masks`
    one an object, polygons being float32 (points, 2); keypoints: float32 (n, k, 2 or 3) of x, y
    and visibility; rotated: float32 (n, 5) of centre, width, height, radians; probabilities:
    float32 (nc,), then there are no boxes.
    """

    xyxy: F32
    confidence: F32
    class_id: I64
    masks: tuple[Mask, ...] | None = None
    keypoints: F32 | None = None
    rotated: F32 | None = None
    probabilities: F32 | None = None

    @property
    def mask_bytes(self) -> int:
        """Of all masks, as `check_mask_bytes` counts them."""
        return sum(_bytes(mask) for mask in self.masks or ())

    def chosen(self, rows: I64) -> "Results":
        """Only these objects, in this order."""
        return replace(
            self,
            xyxy=self.xyxy[rows],
            confidence=self.confidence[rows],
            class_id=self.class_id[rows],
            masks=None if self.masks is None else tuple(self.masks[row] for row in rows),
            keypoints=None if self.keypoints is None else self.keypoints[rows],
            rotated=None if self.rotated is None else self.rotated[rows],
        )


def _never() -> bool:
    return False


def results_of(
    candidates: Candidates,
    place: Origin,
    mask_format: MaskFormat,
    stop: Callable[[], bool] = _never,
) -> Results:
    """Results of one letterboxed image. Raises InvalidOption for masks of too many bytes, and
    DeadlineExceeded once `stop`, asked before each mask, says that nobody waits for them.
    """
    boxes = letterbox.to_original(candidates.xyxy, place.letterboxed, place.offset)
    plain = Results(boxes, candidates.confidence, candidates.class_id)
    beside = candidates.task_output
    if isinstance(beside, Keypoints):
        return replace(plain, keypoints=_keypoints(beside.points, place))
    if isinstance(beside, Rotations):
        return _rotated(plain, beside.boxes, place)
    if isinstance(beside, Probabilities):
        return replace(plain, probabilities=beside.values)
    if isinstance(beside, MaskParts) and mask_format is not MaskFormat.NONE:
        told = list(_masks(candidates.xyxy, beside, place, mask_format, stop))
        rows = np.array([row for row, _ in told], np.int64)
        return replace(plain.chosen(rows), masks=tuple(mask for _, mask in told))
    return plain


def _keypoints(points: F32, place: Origin) -> F32:
    moved = points.copy()
    moved[..., :2] = letterbox.points_to_original(points[..., :2], place.letterboxed, place.offset)
    return moved


def _rotated(plain: Results, boxes: F32, place: Origin) -> Results:
    moved = letterbox.rotated_to_original(boxes, place.letterboxed, place.offset)
    height, width = place.image_shape
    hulls = rotated_boxes.hulls(moved).clip(0, (width, height, width, height)).astype(np.float32)
    return replace(plain, xyxy=hulls, rotated=moved)


def _masks(
    xyxy: F32,
    parts: MaskParts,
    place: Origin,
    mask_format: MaskFormat,
    stop: Callable[[], bool],
) -> Iterator[tuple[int, Mask]]:
    """The masks that are not empty, each with its row."""
    letterboxed, size = place.letterboxed, 0
    for row, crop in enumerate(_crops(xyxy, parts, letterboxed, mask_format)):
        if stop():
            raise DeadlineExceeded(
                f"{row} of {len(xyxy)} masks were made in time: allow more, or ask for fewer "
                "detections, a higher confidence, or no masks"
            )
        if crop.is_empty:
            continue
        mask: Mask
        if mask_format is MaskFormat.RLE:
            x, y = place.offset
            moved = replace(crop, x=crop.x + x, y=crop.y + y)
            mask = mask_encoding.run_lengths(moved, place.image_shape)
        else:
            mask = tuple(
                letterbox.points_to_original(one, letterboxed, place.offset)
                for one in mask_encoding.outlines(crop)
            )
        size += _bytes(mask)
        check_mask_bytes(size)
        yield row, mask


def check_mask_bytes(size: int) -> None:
    """Raises InvalidOption for more than one answer may have, whatever tiles it is of."""
    if size > MAX_MASK_BYTES:
        raise InvalidOption(
            f"the masks of the image have more than {MAX_MASK_BYTES} bytes: ask for fewer "
            "detections, a higher confidence, or no masks"
        )


def _bytes(mask: Mask) -> int:
    if isinstance(mask, RunLengths):
        return len(mask.counts)
    return sum(one.nbytes for one in mask)


def _crops(
    xyxy: F32, parts: MaskParts, letterboxed: Letterboxed, mask_format: MaskFormat
) -> Iterator[masks.MaskCrop]:
    height, width = letterboxed.image.shape[:2]
    if mask_format is MaskFormat.POLYGON:
        return masks.at_input(parts.coefficients, parts.prototypes, xyxy, (height, width))
    boxes = letterbox.to_original(xyxy, letterboxed)
    shape = letterboxed.original_shape
    return masks.at_original(parts.coefficients, parts.prototypes, boxes, shape)

"""Turns the candidates of one image into typed results, in its original pixels.

Pure: numpy and OpenCV. Masks take milliseconds to seconds, so call it neither on the event loop nor
on the device thread.
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

# In one response. Masks of noise must not become a message that can't be sent.
MAX_MASK_BYTES = 16 * 1024**2

Polygons = tuple[F32, ...]
Mask = Polygons | RunLengths


class MaskFormat(enum.StrEnum):
    """How masks are encoded: not at all, as outlines, or as run lengths of every pixel."""

    NONE = "none"
    POLYGON = "polygon"
    RLE = "rle"


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one image, most confident first, in pixels of the whole original image.

    xyxy: float32 (n, 4); confidence: float32 (n,); class_id: int64 (n,). The others are set by
    their tasks. masks: one for each object, a polygon is float32 (points, 2); keypoints: float32
    (n, k, 2 or 3) of x, y and visibility; rotated: float32 (n, 5) of centre, width, height and
    radians; probabilities: float32 (nc,), without boxes.
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
        """The bytes of all masks, as `check_mask_bytes` counts them."""
        return sum(_bytes(mask) for mask in self.masks or ())

    def select(self, rows: I64) -> "Results":
        """Results with only these objects, in this order."""
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
    origin: Origin,
    mask_format: MaskFormat,
    stop: Callable[[], bool] = _never,
) -> Results:
    """The results of one letterboxed image.

    `stop` is called before each mask and says whether nobody waits for them any more. Raises
    DeadlineExceeded then, and InvalidOption for masks of too many bytes.
    """
    boxes = letterbox.to_original(candidates.xyxy, origin.letterboxed, origin.offset)
    plain = Results(boxes, candidates.confidence, candidates.class_id)
    task_output = candidates.task_output
    if isinstance(task_output, Keypoints):
        return replace(plain, keypoints=_keypoints(task_output.points, origin))
    if isinstance(task_output, Rotations):
        return _rotated(plain, task_output.boxes, origin)
    if isinstance(task_output, Probabilities):
        return replace(plain, probabilities=task_output.values)
    if isinstance(task_output, MaskParts) and mask_format is not MaskFormat.NONE:
        kept = list(_masks(candidates.xyxy, task_output, origin, mask_format, stop))
        rows = np.array([row for row, _ in kept], np.int64)
        return replace(plain.select(rows), masks=tuple(mask for _, mask in kept))
    return plain


def _keypoints(points: F32, origin: Origin) -> F32:
    moved = points.copy()
    moved[..., :2] = letterbox.points_to_original(
        points[..., :2], origin.letterboxed, origin.offset
    )
    return moved


def _rotated(plain: Results, boxes: F32, origin: Origin) -> Results:
    moved = letterbox.rotated_to_original(boxes, origin.letterboxed, origin.offset)
    height, width = origin.image_shape
    hulls = rotated_boxes.hulls(moved).clip(0, (width, height, width, height)).astype(np.float32)
    return replace(plain, xyxy=hulls, rotated=moved)


def _masks(
    xyxy: F32,
    parts: MaskParts,
    origin: Origin,
    mask_format: MaskFormat,
    stop: Callable[[], bool],
) -> Iterator[tuple[int, Mask]]:
    """Yields the masks that are not empty, each with its row."""
    letterboxed, size = origin.letterboxed, 0
    for row, crop in enumerate(_crops(xyxy, parts, letterboxed, mask_format)):
        if stop():
            raise DeadlineExceeded(
                f"{row} of {len(xyxy)} masks were made in time: allow more time, or ask for fewer "
                "detections, a higher confidence, or no masks"
            )
        if crop.is_empty:
            continue
        mask: Mask
        if mask_format is MaskFormat.RLE:
            x, y = origin.offset
            moved = replace(crop, x=crop.x + x, y=crop.y + y)
            mask = mask_encoding.run_lengths(moved, origin.image_shape)
        else:
            mask = tuple(
                letterbox.points_to_original(outline, letterboxed, origin.offset)
                for outline in mask_encoding.outlines(crop)
            )
        size += _bytes(mask)
        check_mask_bytes(size)
        yield row, mask


def check_mask_bytes(size: int) -> None:
    """Raises InvalidOption for more bytes than one response may have, over all its tiles."""
    if size > MAX_MASK_BYTES:
        raise InvalidOption(
            f"the masks of the image take more than {MAX_MASK_BYTES} bytes: ask for fewer "
            "detections, a higher confidence, or no masks"
        )


def _bytes(mask: Mask) -> int:
    if isinstance(mask, RunLengths):
        return len(mask.counts)
    return sum(part.nbytes for part in mask)


def _crops(
    xyxy: F32, parts: MaskParts, letterboxed: Letterboxed, mask_format: MaskFormat
) -> Iterator[masks.MaskCrop]:
    height, width = letterboxed.image.shape[:2]
    if mask_format is MaskFormat.POLYGON:
        return masks.at_input(parts.coefficients, parts.prototypes, xyxy, (height, width))
    boxes = letterbox.to_original(xyxy, letterboxed)
    shape = letterboxed.original_shape
    return masks.at_original(parts.coefficients, parts.prototypes, boxes, shape)

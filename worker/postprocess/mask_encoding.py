"""Encodes masks for the wire: outlines as polygons, or COCO run lengths.

Pure: numpy and OpenCV. Formulas: ultralytics.utils.ops.masks2segments for outlines; maskApi.c of
pycocotools (rleEncode, rleToString) for run lengths.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from worker.arrays import F32, I64, U8
from worker.postprocess.masks import MaskCrop

_DIGIT_BITS, _MORE, _FIRST = 5, 0x20, 48


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask of a whole image, column by column. `counts` is COCO's compressed string."""

    height: int
    width: int
    counts: bytes


def outlines(crop: MaskCrop) -> tuple[F32, ...]:
    """The outer outlines of the parts of a mask, each float32 (n, 2) of x and y in its grid: the
    centres of pixels, as OpenCV gives them, with only the ends of straight runs. Holes are left
    out, as in the library.
    """
    if not crop.pixels.size:
        return ()
    contours, _ = cv2.findContours(
        crop.pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(crop.x, crop.y)
    )
    return tuple(contour.reshape(-1, 2).astype(np.float32) for contour in contours)


def run_lengths(crop: MaskCrop, shape: tuple[int, int]) -> RunLengths:
    """Encodes a mask of an image (height, width) from its crop, without making the whole image."""
    height, width = shape
    runs = _runs(crop, height)
    if len(runs):
        # Runs that touch are merged.
        apart = runs[1:, 0] != runs[:-1, 1]
        runs = np.stack((runs[np.append(True, apart), 0], runs[np.append(apart, True), 1]), axis=1)
    # The last run is of zeros, unless the last pixel is in the mask.
    ends = runs.reshape(-1)
    if not len(runs) or ends[-1] < height * width:
        ends = np.append(ends, height * width)
    return RunLengths(height, width, compressed(np.diff(ends, prepend=0)))


def _runs(crop: MaskCrop, height: int) -> I64:
    """Begin and end of each run of ones, int64 (n, 2), counted down the columns of the image. A
    run that reaches the lower border may end where the next one begins.
    """
    rows, count = crop.pixels.shape
    # A zero after each column keeps runs from going on into the next one.
    columns = np.zeros((count, rows + 1), np.uint8)
    columns[:, :rows] = cv2.transpose(crop.pixels) if crop.pixels.size else 0
    flat = columns.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.view(bool), prepend=False))
    column, row = np.divmod(edges, rows + 1)
    return ((column + crop.x) * height + row + crop.y).reshape(-1, 2)


def compressed(lengths: I64) -> bytes:
    """COCO's string of run lengths, zeros first: each as its difference to the run two before it,
    in digits of 5 bits, signed.
    """
    values = lengths.astype(np.int64)
    values[3:] -= lengths[1:-2]
    digits: list[U8] = []
    goes_on = np.ones(len(values), bool)
    while goes_on.any():
        low = values & 0x1F
        values = values >> _DIGIT_BITS
        more = np.where(low & 0x10, values != -1, values != 0)
        written = (low | np.where(more, _MORE, 0)) + _FIRST
        digits.append(np.where(goes_on, written, 0).astype(np.uint8))
        goes_on = goes_on & more
    table = np.stack(digits, axis=1)
    return bytes(table[table != 0])

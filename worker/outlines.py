"""What a mask becomes on the wire: outlines as polygons, or COCO run lengths.

Pure: numpy and OpenCV. Formulas: ultralytics.utils.ops.masks2segments for outlines; maskApi.c of
pycocotools (rleEncode, rleToString) for run lengths.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from worker.masks import Crop

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
_DIGIT_BITS, _MORE, _FIRST = 5, 0x20, 48


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask of a whole image, column by column: `counts` as COCO's compressed string."""

    height: int
    width: int
    counts: bytes


def outlines(crop: Crop) -> tuple[F32, ...]:
    """Outer outlines of the parts of a mask, each float32 (n, 2) of x and y in its grid: pixels'
    centres as OpenCV gives them, straight runs cut to their ends. Holes are left out, as the
    library leaves them.
    """
    if not crop.pixels.size:
        return ()
    found, _ = cv2.findContours(
        crop.pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(crop.x, crop.y)
    )
    return tuple(one.reshape(-1, 2).astype(np.float32) for one in found)


def run_lengths(crop: Crop, shape: tuple[int, int]) -> RunLengths:
    """A mask of an image of (height, width) pixels from its crop, without the pixels outside."""
    height, width = shape
    runs = _runs(crop, height)
    # What is left at the end is a run of zeros; of none, if the last pixel is in the mask.
    ends = np.unique(np.append(runs.reshape(-1), height * width))
    return RunLengths(height, width, compressed(np.diff(ends, prepend=0)))


def _runs(crop: Crop, height: int) -> I64:
    """Begin and end of each run of ones, int64 (n, 2), counting down the columns of the image."""
    columns = crop.pixels.T
    edges = np.diff(columns.astype(np.int8), axis=1, prepend=0, append=0)
    column, row = np.nonzero(edges)
    places = ((column + crop.x) * height + row + crop.y).reshape(-1, 2)
    # A run that reaches the lower border goes on where the next column begins.
    joined = places[1:, 0] == places[:-1, 1]
    begins = places[np.append(True, ~joined)[: len(places)], 0]
    ends = places[np.append(~joined, True)[: len(places)], 1]
    return np.stack((begins, ends), axis=1).astype(np.int64)


def compressed(lengths: I64) -> bytes:
    """COCO's string of run lengths, zeros first: differences to the run before the last, in
    digits of 5 bits with a sign.
    """
    values = lengths.astype(np.int64)
    values[3:] -= lengths[1:-2]
    digits: list[npt.NDArray[np.uint8]] = []
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

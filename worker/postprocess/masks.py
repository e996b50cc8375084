"""Makes the masks of one image from coefficients and prototypes, each inside its object's box.

Equals ultralytics.utils.ops (process_mask with upsample, process_mask_native), but holds the pixels
of one object at a time, so that 300 objects take the memory of one. Pure: numpy alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.arrays import F32, I64, U8, is_finite
from worker.postprocess.outputs import NOT_FINITE
from yolopool.errors import AnswerNotFinite

# Rows are upsampled in bands of at most so many pixels, so that no whole image exists as floats.
_BAND_PIXELS = 2**16
# Letterboxed pixels for each pixel of a prototype: the finest feature map has stride 8, and Proto
# doubles its resolution.
_STRIDE = 4


@dataclass(frozen=True, slots=True)
class MaskCrop:
    """A mask inside its box: uint8 (h, w) of 0 and 1, with the `x` and `y` of its top left pixel
    in the whole grid. The mask is 0 outside.
    """

    pixels: U8
    x: int
    y: int

    @property
    def is_empty(self) -> bool:
        return not self.pixels.any()


@dataclass(frozen=True, slots=True)
class _Axis:
    """For each pixel of a run: the two samples it is made of, and the weight of the second."""

    low: I64
    high: I64
    weight: F32

    @property
    def span(self) -> tuple[int, int]:
        """The samples needed: the first, and one after the last."""
        return int(self.low[0]), int(self.high[-1]) + 1

    def moved(self, by: int) -> "_Axis":
        """The same pixels, where `by` more samples come first."""
        return _Axis(self.low + by, self.high + by, self.weight)

    def part(self, begin: int, end: int) -> "_Axis":
        return _Axis(self.low[begin:end], self.high[begin:end], self.weight[begin:end])


@dataclass(frozen=True, slots=True)
class _Patch:
    """A rectangle of a grid of logits, float32 (h, w), and where it begins."""

    values: F32
    top: int
    left: int


def at_input(
    coefficients: F32, prototypes: F32, boxes: F32, shape: tuple[int, int]
) -> Iterator[MaskCrop]:
    """Masks on the letterboxed grid, as `process_mask(..., upsample=True)`: predict's default.

    coefficients: float32 (n, nm); prototypes: float32 (nm, h, w); boxes: float32 (n, 4) corners
    in pixels of the grid; shape: (height, width) of it.
    """
    samples = prototypes.shape[1:]
    for own, box in zip(coefficients, boxes, strict=True):
        inside = _inside(box, shape)
        if inside is None:
            yield _NOTHING
            continue
        left, top, right, bottom = inside
        rows, columns = (
            _axis(top, bottom, samples[0], shape[0]),
            _axis(left, right, samples[1], shape[1]),
        )
        yield MaskCrop(_positive(_summed(own, prototypes, rows, columns), rows, columns), left, top)


def at_original(
    coefficients: F32, prototypes: F32, boxes: F32, shape: tuple[int, int]
) -> Iterator[MaskCrop]:
    """Masks on the original image's grid, as `process_mask_native`: predict's retina_masks.

    As `at_input`, with boxes in original pixels and the original image's (height, width).
    """
    high, wide = prototypes.shape[1:]
    factor = _first_factor((high, wide), shape)
    finer = high * factor, wide * factor
    top_edge, left_edge, content = _content(finer, shape)
    for own, box in zip(coefficients, boxes, strict=True):
        inside = _inside(box, shape)
        if inside is None:
            yield _NOTHING
            continue
        left, top, right, bottom = inside
        rows = _axis(top, bottom, content[0], shape[0]).moved(top_edge)
        columns = _axis(left, right, content[1], shape[1]).moved(left_edge)
        # The library interpolates twice. So does this, but only where the second one samples.
        first_rows = _axis(*rows.span, high, finer[0])
        first_columns = _axis(*columns.span, wide, finer[1])
        logits = _summed(own, prototypes, first_rows, first_columns)
        patch = _Patch(_stretched(logits, first_rows, first_columns), rows.span[0], columns.span[0])
        yield MaskCrop(_positive(patch, rows, columns), left, top)


_NOTHING = MaskCrop(np.zeros((0, 0), np.uint8), 0, 0)


def _inside(box: F32, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom), the last two exclusive, of the pixels r with min <= r < max,
    which ops.crop_mask keeps; None if there are none.
    """
    if not np.isfinite(box).all():
        return None
    left, top = max(0, math.ceil(box[0])), max(0, math.ceil(box[1]))
    right, bottom = min(shape[1], math.ceil(box[2])), min(shape[0], math.ceil(box[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _axis(begin: int, end: int, samples: int, size: int) -> _Axis:
    """The pixels begin..end of `size` pixels that are interpolated from `samples`: bilinear,
    corners not aligned, the formula of torch's upsample_bilinear2d, in float32 as there.
    """
    half, scale = np.float32(0.5), np.float32(samples / size)
    source = np.maximum((np.arange(begin, end, dtype=np.float32) + half) * scale - half, 0)
    low = np.minimum(source.astype(np.int64), samples - 1)
    weight = np.clip(source - low.astype(np.float32), 0, 1).astype(np.float32)
    return _Axis(low, np.minimum(low + 1, samples - 1), weight)


def _summed(coefficients: F32, prototypes: F32, rows: _Axis, columns: _Axis) -> _Patch:
    """The weighted sum of the prototypes where these axes take samples. Raises InferenceFailed if
    it is not finite.
    """
    (top, bottom), (left, right) = rows.span, columns.span
    part = prototypes[:, top:bottom, left:right]
    logits = np.tensordot(coefficients, part, 1)
    if not is_finite(logits):
        raise AnswerNotFinite(NOT_FINITE)
    return _Patch(logits, top, left)


def _stretched(patch: _Patch, rows: _Axis, columns: _Axis) -> F32:
    """Interpolates to float32 (rows, columns): across first, then down, as torch does."""
    top, bottom = rows.span
    needed = patch.values[top - patch.top : bottom - patch.top]
    across = np.take(needed, columns.low - patch.left, axis=1)
    across *= 1 - columns.weight
    other = np.take(needed, columns.high - patch.left, axis=1)
    other *= columns.weight
    across += other
    weight = rows.weight[:, None]
    down = np.take(across, rows.low - top, axis=0)
    down *= 1 - weight
    other = np.take(across, rows.high - top, axis=0)
    other *= weight
    down += other
    return down


def _positive(patch: _Patch, rows: _Axis, columns: _Axis) -> U8:
    """Where the stretched logits are above 0: uint8 (rows, columns)."""
    height, width = len(rows.low), len(columns.low)
    step = max(1, _BAND_PIXELS // width)
    pixels = np.empty((height, width), np.uint8)
    for begin in range(0, height, step):
        end = min(begin + step, height)
        band = _stretched(patch, rows.part(begin, end), columns)
        np.greater(band, 0, out=pixels[begin:end].view(bool))
    return pixels


def _content(finer: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
    """The top and left edge and the (height, width) of the image in a padded grid: scale_masks."""
    gain = min(finer[0] / shape[0], finer[1] / shape[1])
    height, width = max(round(shape[0] * gain), 1), max(round(shape[1] * gain), 1)
    top, left = round((finer[0] - height) / 2 - 0.1), round((finer[1] - width) / 2 - 0.1)
    return top, left, (min(height, finer[0] - top), min(width, finer[1] - left))


def _first_factor(samples: tuple[int, int], shape: tuple[int, int]) -> int:
    """The smallest of 1, 2, 4 that makes the padding whole pixels: process_mask_native."""
    full = _STRIDE * samples[0], _STRIDE * samples[1]
    gain = min(full[0] / shape[0], full[1] / shape[1])
    padding = [side - max(round(own * gain), 1) for side, own in zip(full, shape, strict=True)]
    either = padding[0] | padding[1]
    return _STRIDE // math.gcd(_STRIDE, either | either // 2)

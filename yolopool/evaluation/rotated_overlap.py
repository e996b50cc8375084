"""How far rotated boxes overlap, as the model library's `val` of oriented boxes has it. Pure.

A box stands for the normal distribution of its centre and covariance; two overlap by one less the
Hellinger distance between theirs (Llerena et al., arXiv 2106.06072).
"""

import numpy as np

from yolopool.evaluation.average_precision import Array

_TINY = 1e-7


def overlap(left: Array, right: Array) -> Array:
    """Of n boxes with m boxes, each centre x, y, width, height and radians: (n, m), 0..1."""
    x, y = (left[:, None, axis] - right[None, :, axis] for axis in (0, 1))
    a, b, c = (
        one[:, None] + other[None] for one, other in zip(_spread(left), _spread(right), strict=True)
    )
    determinant = a * b - c**2
    apart = (a * y**2 + b * x**2 - 2 * c * x * y) / (determinant + _TINY) / 4
    own = np.sqrt(_determinant(left)[:, None] * _determinant(right)[None])
    unlike = np.log(determinant / (4 * own + _TINY) + _TINY) / 2
    distance = np.clip(apart + unlike, _TINY, 100.0)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + _TINY), np.float64)


def _spread(boxes: Array) -> tuple[Array, Array, Array]:
    """The covariances: of x, of y, and of both."""
    along, across = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return (
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )


def _determinant(boxes: Array) -> Array:
    return np.asarray(boxes[:, 2] ** 2 * boxes[:, 3] ** 2 / 144, np.float64)


def of_corners(corners: Array) -> Array:
    """The rotated box of each rectangle of four corners (n, 4, 2): (n, 5)."""
    sides = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    width, height = (np.hypot(side[:, 0], side[:, 1]) for side in sides)
    radians = np.arctan2(sides[0][:, 1], sides[0][:, 0])
    return np.column_stack((corners.mean(axis=1), width, height, radians))

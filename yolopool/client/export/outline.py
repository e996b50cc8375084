"""Outlines as labels have them: one for an object, also where its mask has several parts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def joined(parts: Sequence[F32]) -> F32:
    """One outline float32 (points, 2) of all parts; none, (0, 2), of fewer than three points.

    Each part is entered where it is nearest to what is joined already, walked round once, and left
    on the same way: the bridge covers no area.
    """
    if sum(map(len, parts)) < 3:
        return np.zeros((0, 2), np.float32)
    outline, *rest = sorted(parts, key=area, reverse=True)
    for part in rest:
        apart = np.square(outline[:, None] - part[None]).sum(axis=2)
        leave, enter = divmod(int(apart.argmin()), len(part))
        walk = np.roll(part, -enter, axis=0)
        bridge = (outline[: leave + 1], walk, walk[:1], outline[leave:])
        outline = np.concatenate(bridge)
    return outline


def area(part: F32) -> float:
    """The area inside an outline, in square pixels."""
    x, y = part[:, 0].astype(float), part[:, 1].astype(float)
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2

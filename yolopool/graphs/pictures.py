"""The pictures that a graph is tried on. Pure, and the same on every machine.

Each shows one object on the same background, in a place of its own: where two answers differ, the
pictures do.
"""

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
# Centres of the objects of three scenes as shares (x, y) of the picture, and of three more. None is
# that of another once they are mirrored or turned.
PLACES = (
    ((0.27, 0.31), (0.74, 0.24), (0.43, 0.73)),
    ((0.70, 0.62), (0.34, 0.23), (0.22, 0.77)),
)
SCENES = 3
# The number of a dark picture: what a graph measures of all images in a pass differs beside it.
DARK = 2 * SCENES
# Side of the object's square as a share of the shorter side of the picture.
_SIDE = 0.3
_COLOURS = ((40, 40, 230), (60, 200, 40), (230, 90, 30))  # BGR
_INK, _GREY, _NOISE = 20, 114, 12


def scene(number: int, height: int, width: int, channels: int = 3) -> U8:
    """Picture `number`, one of the scenes or DARK: uint8 (height, width, channels), BGR or, of one
    channel, the mean of it.
    """
    if number == DARK:
        return scene(SCENES - 1, height, width, channels) // 3
    image = _coloured(number, height, width)
    return image if channels == 3 else image.mean(2, keepdims=True).astype(np.uint8)


def _coloured(number: int, height: int, width: int) -> U8:
    # Of all generators of numpy, the one whose numbers will never change.
    random = np.random.RandomState(7)
    noise = random.randint(-_NOISE, _NOISE + 1, (height, width, 1))
    slope = np.linspace(-30, 30, width)[None, :, None] + np.linspace(-15, 15, height)[:, None, None]
    image = np.clip(_GREY + slope.round() + noise, 0, 255).repeat(3, axis=2).astype(np.uint8)
    x, y = PLACES[number // SCENES][number % SCENES]
    _draw(
        image,
        number % SCENES,
        round(x * width),
        round(y * height),
        round(_SIDE * min(height, width)) // 2,
    )
    return image


def _draw(image: U8, kind: int, x: int, y: int, reach: int) -> None:
    """A disc, a square or a triangle of one colour, with a dark edge and stripes inside."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    down, right = (rows - y) / reach, (columns - x) / reach
    depth = (
        1 - np.hypot(down, right),
        1 - np.maximum(abs(down), abs(right)),
        np.minimum(1 - down, down + 1 - 2 * abs(right)) / 2,
    )[kind]
    image[depth > 0] = _INK
    image[depth > 0.12] = _COLOURS[kind]
    image[(depth > 0.3) & ((rows + columns) // max(2, reach // 4) % 2 == 0)] = 255

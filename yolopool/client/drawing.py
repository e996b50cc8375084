"""Draws the results of every task on their image, with pillow alone."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from yolopool.client.images import to_rgb
from yolopool.client.masks import Mask, fill

ImageSource = Image.Image | bytes | str | Path
F32 = npt.NDArray[np.float32]
# Distinct hues with enough contrast to white letters; a class takes one by its id.
_PALETTE = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#e0700b", "#8c564b", "#c2399b", "#17899b",
    "#7f7f7f", "#8a8b1c", "#0b5d8f", "#a11d33",
)  # fmt: skip
_MASK_OPACITY = 110  # of 255
# A keypoint below this visibility counts as hidden: the model library's threshold for drawing.
VISIBLE = 0.25
# The limbs of a person: pairs of COCO's 17 keypoints. Points of other models are not joined.
_PERSON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


class DrawableObject(Protocol):
    """One object on an image, in pixels; what its task does not have is None."""

    @property
    def xyxy(self) -> tuple[float, float, float, float]: ...
    @property
    def corner(self) -> tuple[float, float]: ...
    @property
    def class_id(self) -> int: ...
    @property
    def class_name(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def mask(self) -> Mask | None: ...
    @property
    def keypoints(self) -> F32 | None: ...
    @property
    def corners(self) -> F32 | None: ...
    @property
    def tracker_id(self) -> int | None: ...


class DrawableClasses(Protocol):
    """The likeliest classes of a whole image."""

    @property
    def class_name(self) -> tuple[str, ...]: ...
    @property
    def probability(self) -> F32: ...


class Drawable(Protocol):
    """The results of one image: objects, most confident first, or the classes of the whole."""

    @property
    def classification(self) -> DrawableClasses | None: ...
    def __iter__(self) -> Iterator[DrawableObject]: ...


def picture_of(image: ImageSource | None) -> Image.Image:
    """A copy of the image in RGB with its EXIF orientation applied. Raises ValueError without an
    image, or for one that pillow does not read, such as HEIC or a JPEG that ends early.
    """
    if image is None:
        raise ValueError("no image to draw on: give the one the boxes were found on")
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    try:
        return to_rgb(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image)
    except Exception as error:  # pillow's errors of damaged files are of all kinds
        raise ValueError(
            f"pillow can't read this image here ({error}): give a whole one, or one in another "
            "format, to draw on"
        ) from error


def draw(results: Drawable, picture: Image.Image) -> Image.Image:
    """Draws on the picture and returns it; the most confident objects lie on top."""
    pen = _Pen(picture)
    objects = list(reversed(list(results)))
    for item in objects:
        if item.mask is not None:
            pen.mask(item.mask, _colour(item))
    for item in objects:
        pen.outline(item)
        if item.keypoints is not None:
            pen.keypoints(item.keypoints, _colour(item))
    for item in objects:
        track = "" if item.tracker_id is None else f"#{item.tracker_id} "
        text = f"{track}{item.class_name} {item.confidence:.2f}"
        pen.label(item.corner, text, _colour(item))
    classes = results.classification
    if classes is not None:
        named = zip(classes.class_name, classes.probability, strict=True)
        pen.lines([f"{name} {probability:.3f}" for name, probability in named])
    return picture


def _colour(item: DrawableObject) -> str:
    return _PALETTE[item.class_id % len(_PALETTE)]


class _Pen:
    """Draws with lines and letters that fit the picture's size."""

    def __init__(self, picture: Image.Image) -> None:
        scale = max(picture.size) / 640
        self._picture = picture
        self._draw = ImageDraw.Draw(picture)
        self._line = max(2, round(2.5 * scale))
        self._font: Any = ImageFont.load_default(max(11, 13 * scale))

    def mask(self, mask: Mask, colour: str) -> None:
        if mask.counts:
            cover = Image.fromarray(mask.to_array().astype(np.uint8) * _MASK_OPACITY)
        else:
            cover = Image.new("L", self._picture.size)
            brush = ImageDraw.Draw(cover)
            for part in mask.polygons:
                fill(brush, part, _MASK_OPACITY)
        self._picture.paste(colour, (0, 0), cover)

    def outline(self, item: DrawableObject) -> None:
        if item.corners is None:
            self._draw.rectangle(item.xyxy, outline=_colour(item), width=self._line)
            return
        points = [(float(x), float(y)) for x, y in item.corners]
        self._draw.line([*points, points[0]], fill=_colour(item), width=self._line, joint="curve")

    def keypoints(self, points: F32, colour: str) -> None:
        seen = [len(point) < 3 or point[2] >= VISIBLE for point in points]
        if len(points) == 17:
            for begin, end in _PERSON:
                if seen[begin] and seen[end]:
                    both = [tuple(map(float, points[index][:2])) for index in (begin, end)]
                    self._draw.line(both, fill=colour, width=max(1, self._line // 2))
        radius = max(3, self._line)
        for (x, y, *_), is_seen in zip(points.tolist(), seen, strict=True):
            if is_seen:
                spot = (x - radius, y - radius, x + radius, y + radius)
                self._draw.ellipse(spot, fill="white", outline=colour, width=max(1, radius // 2))

    def label(self, place: tuple[float, float], text: str, colour: str) -> None:
        """Writes above the place, or below it if there is no room above."""
        x, y = place
        left, top, right, bottom = self._draw.textbbox((x, y), text, font=self._font)
        height = bottom - top + 4
        shift = -height if y >= height else 0.0
        self._draw.rectangle((x, y + shift, x + right - left + 6, y + shift + height), fill=colour)
        self._draw.text((x + 3, y + shift + 2 - (top - y)), text, fill="white", font=self._font)

    def lines(self, texts: list[str]) -> None:
        """Writes the lines one below the other, from the upper left corner."""
        text = "\n".join(texts)
        left, top, right, bottom = self._draw.multiline_textbbox((8, 8), text, font=self._font)
        self._draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=_PALETTE[0])
        self._draw.multiline_text((8, 8), text, fill="white", font=self._font)

"""What is on a labelled image: classes and outlines in shares of the image. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yolopool.errors import InvalidOption
from yolopool.evaluation import rotated_overlap
from yolopool.evaluation.average_precision import Array, Ints

POSE, OBB = "pose", "obb"
# As the model library: what lies this little outside is taken for the edge.
_MOST = 1.01


@dataclass(frozen=True, slots=True)
class Truths:
    """classes: (m,); outlines: of each object the points x, y of its corners or of its outline, in
    shares of the width and the height of the upright image.
    """

    classes: Ints
    outlines: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.outlines)

    def boxes(self, size: tuple[int, int]) -> Array:
        """(m, 4): x1, y1, x2, y2 in pixels of an image of (width, height)."""
        boxes = [(*one.min(axis=0), *one.max(axis=0)) for one in self.outlines]
        return np.array(boxes, np.float64).reshape(-1, 4) * (*size, *size)

    def rotated(self, size: tuple[int, int]) -> Array:
        """(m, 5): centre x, y, width, height in pixels, and radians. Of outlines of four points."""
        corners = np.array(self.outlines, np.float64).reshape(-1, 4, 2) * size
        return rotated_overlap.of_corners(corners)


NOTHING = Truths(np.zeros(0, np.int64), ())


def truths_of(objects: Sequence[tuple[int, Array]]) -> Truths:
    classes = np.array([class_id for class_id, _ in objects], np.int64)
    return Truths(classes, tuple(outline for _, outline in objects))


def upright(x: float, y: float, width: float, height: float) -> Array:
    """The corners of a box of centre, width and height."""
    right, low = width / 2, height / 2
    return np.array(
        [(x - right, y - low), (x + right, y - low), (x + right, y + low), (x - right, y + low)]
    )


def read_lines(text: str, place: str, task: str, ids: Mapping[int, int] | int) -> Truths:
    """The objects of a label file of YOLO: a line an object, its class and shares of the image.

    They are centre, width and height; with keypoints behind them for pose; the points of an outline
    for segment and detect; the four corners for obb. `ids`: the model's class by that of the file,
    or how many classes both have. The same line twice is one object, as in the model library.
    Raises InvalidOption.
    """
    objects = list(_objects(text, place, task))
    return truths_of([(_class(place, one, ids), outline) for one, outline in objects])


def _objects(text: str, place: str, task: str) -> Iterator[tuple[int, Array]]:
    seen = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            cls, *numbers = (float(word) for word in line.split())
        except ValueError:
            cls, numbers = -1.0, []
        outline = _outline(numbers, task)
        if outline is None or cls < 0 or not cls.is_integer() or not _is_inside(outline):
            raise InvalidOption(f"{place}:{number} is not a label: give {_RULES.get(task, _RULE)}")
        if (cls, *numbers) not in seen:
            seen.add((cls, *numbers))
            yield int(cls), outline


_RULE = (
    "a class, then centre x and y, width and height as shares of the image, or the points of an "
    "outline"
)
_RULES = {
    OBB: "a class, then x and y of the four corners as shares of the image",
    POSE: "a class, then centre x and y, width and height as shares of the image, then keypoints",
}


def _outline(numbers: Sequence[float], task: str) -> Array | None:
    count = len(numbers)
    if count == 4 or (task == POSE and count > 4):
        return upright(*numbers[:4])
    if task == POSE or count % 2 or count < 6 or (task == OBB and count != 8):
        return None
    return np.array(numbers, np.float64).reshape(-1, 2)


def _is_inside(outline: Array) -> bool:
    """Not so if a number is not finite."""
    low, high = outline.min(), outline.max()
    return bool(1 - _MOST <= low <= high <= _MOST and (np.ptp(outline, axis=0) > 0).all())


def _class(place: str, class_id: int, ids: Mapping[int, int] | int) -> int:
    if isinstance(ids, int):
        if class_id < ids:
            return class_id
        raise InvalidOption(f"{place} has class {class_id}: the model has 0 to {ids - 1}")
    if class_id not in ids:
        raise InvalidOption(
            f"{place} has class {class_id}, which its data.yaml does not name, or the model does "
            "not have: give labels of the model's classes"
        )
    return ids[class_id]

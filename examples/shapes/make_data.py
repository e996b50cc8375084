"""Draws the labelled pictures the demo models are trained and judged on.

320 px PNG scenes of 1 to 5 circles, squares and triangles that do not overlap, rotated, in random
colours on noisy backgrounds. The same seed draws the same pictures. Needs numpy and pillow only.

    python examples/shapes/make_data.py build/shapes
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("circle", "square", "triangle")
SIZE = 320
# Radius of the circle around a shape, in pixels.
RADIUS_MIN, RADIUS_MAX = 14, 54
# A shape must be visible: minimum distance of its colour from the background's mean (0..441).
CONTRAST_MIN = 70.0
# Pictures are drawn this much larger and scaled down, for smooth edges.
OVERSAMPLING = 3
# Corners on the circle around a shape.
CORNERS = {"square": 4, "triangle": 3}


@dataclass(frozen=True, slots=True)
class Split:
    """A folder of pictures and the seed that draws them."""

    name: str
    seed: int
    count: int


# Training, validation during training, and a held-out set.
SPLITS = (Split("train", 1, 1200), Split("val", 2, 150), Split("test", 3, 150))


@dataclass(frozen=True, slots=True)
class Shape:
    """One labelled shape: its class (index into NAMES), place, turn (radians) and colour."""

    cls: int
    x: float
    y: float
    radius: float
    turn: float
    colour: tuple[int, int, int]

    def corners(self) -> list[tuple[float, float]]:
        """The polygon in pixels; empty for a circle."""
        count = CORNERS.get(NAMES[self.cls], 0)
        angles = [self.turn + 2 * math.pi * i / count for i in range(count)]
        return [
            (self.x + self.radius * math.cos(a), self.y + self.radius * math.sin(a)) for a in angles
        ]

    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in pixels."""
        corners = self.corners()
        if not corners:
            return (
                self.x - self.radius,
                self.y - self.radius,
                self.x + self.radius,
                self.y + self.radius,
            )
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        return min(xs), min(ys), max(xs), max(ys)


def background(rng: np.random.Generator) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: one colour, soft blotches and grain."""
    blotches = rng.normal(0, rng.uniform(10, 35), (20, 20, 3)) + rng.uniform(0, 255, 3)
    small = Image.fromarray(np.clip(blotches, 0, 255).astype(np.uint8))
    smooth = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)
    grain = rng.normal(0, rng.uniform(2, 8), (SIZE, SIZE, 3))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def place(rng: np.random.Generator, paper: np.ndarray) -> list[Shape]:
    """1 to 5 shapes that do not touch each other or the border."""
    mean = paper.mean(axis=(0, 1))
    wanted, shapes = int(rng.integers(1, 6)), list[Shape]()
    # A crowded picture may have no room for another shape: the search is bounded.
    for _ in range(200):
        if len(shapes) == wanted:
            break
        radius = float(rng.uniform(RADIUS_MIN, RADIUS_MAX))
        x, y = (float(v) for v in rng.uniform(radius + 2, SIZE - radius - 2, 2))
        colour = rng.integers(0, 256, 3)
        free = all(math.hypot(x - s.x, y - s.y) > radius + s.radius + 4 for s in shapes)
        if not free or np.linalg.norm(colour - mean) < CONTRAST_MIN:
            continue
        red, green, blue = (int(v) for v in colour)
        turn = float(rng.uniform(0, 2 * math.pi))
        shapes.append(Shape(int(rng.integers(3)), x, y, radius, turn, (red, green, blue)))
    return shapes


def draw(paper: np.ndarray, shapes: list[Shape]) -> Image.Image:
    """The picture of these shapes on this background."""
    side = SIZE * OVERSAMPLING
    picture = Image.fromarray(paper)
    for shape in shapes:
        mask = Image.new("L", (side, side))
        pen = ImageDraw.Draw(mask)
        if corners := shape.corners():
            pen.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in corners], fill=255)
        else:
            pen.ellipse([v * OVERSAMPLING for v in shape.box()], fill=255)
        picture.paste(shape.colour, mask=mask.resize((SIZE, SIZE), Image.Resampling.BOX))
    return picture


def scenes(seed: int, count: int) -> Iterator[tuple[Image.Image, list[Shape]]]:
    """Draws `count` labelled pictures; picture i of a seed does not depend on the count."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        paper = background(rng)
        shapes = place(rng, paper)
        yield draw(paper, shapes), shapes


def label_line(shape: Shape) -> str:
    """A line of the model library's label file: class and centre, width, height in 0..1."""
    x1, y1, x2, y2 = (v / SIZE for v in shape.box())
    return f"{shape.cls} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


def write_split(folder: Path, split: Split) -> None:
    """Writes images/<split>/*.png with a gt.json beside them, and labels/<split>/*.txt."""
    images, labels = folder / "images" / split.name, folder / "labels" / split.name
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    truth = {}
    for index, (picture, shapes) in enumerate(scenes(split.seed, split.count)):
        stem = f"{index:05d}"
        picture.save(images / f"{stem}.png")
        (labels / f"{stem}.txt").write_text("".join(map(label_line, shapes)))
        truth[f"{stem}.png"] = [{"cls": s.cls, "xyxy": list(s.box())} for s in shapes]
    names = {str(i): name for i, name in enumerate(NAMES)}
    (images / "gt.json").write_text(json.dumps({"names": names, "images": truth}) + "\n")


def write_all(folder: Path, splits: tuple[Split, ...] = SPLITS) -> None:
    """Writes every split and the data.yaml that the model library's trainer reads."""
    for split in splits:
        write_split(folder, split)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(
        f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\n"
        f"test: images/test\nnames:\n{names}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    write_all(parser.parse_args().folder)

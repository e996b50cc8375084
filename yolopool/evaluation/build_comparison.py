"""Compares two builds of a version on the same images: how far results drift, and how fast each is.

It calls Detect as any client does. The builds take turns, so that other load on the pool affects
both alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.model_records import Drift, ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation import average_precision, drift

# Average precision needs the whole curve, down to the least confident objects.
MIN_CONFIDENCE = 0.001
# The labels of one image: class, centre x and y, width and height as shares; float64 (n, 5).
Labels = NDArray[np.float64]
# Requests before times count, to load and warm up both builds.
WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class BuildComparison:
    """`exact_ms` and `ms` are the median times of a forward pass of one image."""

    drift: Drift
    exact_ms: float
    ms: float


def compare(
    client: Client,
    exact: ModelVersion,
    other: ModelVersion,
    images: Sequence[Path],
    truths: Sequence[Labels] | None,
    progress: Callable[[float], None] = lambda _: None,
) -> BuildComparison:
    """Compares `other` with `exact`, both builds of one version. `truths` are the labels of each
    image, from `read_labels`. Raises what Detect raises.
    """
    asked = MIN_CONFIDENCE if truths is not None else None
    for build in (exact, other):
        for _ in range(WARM_UPS):
            client.detect(images[0], build.name)
    pairs = []
    for number, image in enumerate(images):
        found = [client.detect(image, build.name, confidence=asked) for build in (exact, other)]
        pairs.append((found[0], found[1]))
        _check_class(other, pairs[0][1].compute_class, found[1].compute_class)
        progress((number + 1) / len(images))
    served = [(_served(a, exact.confidence), _served(b, exact.confidence)) for a, b in pairs]
    moved = drift.total(drift.compare(a, b) for a, b in served)
    moved = replace(
        moved,
        exact=pairs[0][0].variant.rpartition("/")[0],
        compute_class=pairs[0][1].compute_class,
    )
    if truths is not None:
        moved = _with_precision(moved, len(exact.class_names), pairs, truths)
    times = [[side.timing.inference_ms for side in sides] for sides in zip(*pairs, strict=True)]
    return BuildComparison(moved, median(times[0]), median(times[1]))


def _check_class(build: ModelVersion, first: str, other: str) -> None:
    """Raises InvalidOption where answers of a build are from two compute classes: what one gives
    says nothing of the other.
    """
    if first != other:
        classes = sorted((first, other))
        raise InvalidOption(
            f"{build.name} was answered for by devices of several compute classes "
            f"({', '.join(name or 'unknown' for name in classes)}): name one with --compute-class"
        )


def _served(found: Detections, confidence: float) -> Detections:
    """The results that are served: those above the version's threshold."""
    return found if found.classification is not None else found[found.confidence > confidence]


def _with_precision(
    moved: Drift,
    classes: int,
    pairs: Sequence[tuple[Detections, Detections]],
    truths: Sequence[Labels],
) -> Drift:
    sizes = [pair[0].image_size for pair in pairs]
    real = {
        str(number): _corners(rows, size)
        for number, (rows, size) in enumerate(zip(truths, sizes, strict=True))
    }
    precisions = []
    for side in zip(*pairs, strict=True):
        rows = {str(number): _rows(one) for number, one in enumerate(side)}
        precisions.append(average_precision.mean_precision(rows, real, classes))
    (exact50, exact95), (map50, map95) = precisions
    return replace(moved, exact_map50=exact50, exact_map50_95=exact95, map50=map50, map50_95=map95)


def _corners(labels: Labels, size: tuple[int, int]) -> NDArray[np.float64]:
    """The corners and class of the labels of an image of (width, height) pixels: float64 (n, 5)."""
    cls, centre, extent = labels[:, :1], labels[:, 1:3], labels[:, 3:]
    low, high = (centre - extent / 2) * size, (centre + extent / 2) * size
    return np.concatenate((low, high, cls), axis=1)


def _rows(found: Detections) -> NDArray[np.float64]:
    columns = (found.xyxy, found.confidence, found.class_id)
    return np.column_stack(columns).astype(np.float64).reshape(-1, 6)


def read_labels(folder: Path, images: Sequence[Path], classes: int) -> list[Labels]:
    """Reads the labels of each image from a folder of .txt files; without a file, nothing is on it.

    A line is an object: class, centre x and y, width and height as shares of the image. Raises
    InvalidOption.
    """
    found = [_read(folder / f"{image.stem}.txt", classes) for image in images]
    if not any(len(rows) for rows in found):
        raise InvalidOption(
            f"{folder} has no labels of these images: give a folder with a .txt for each image"
        )
    return found


def _read(path: Path, classes: int) -> Labels:
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), 1):
        try:
            cls, *box = (float(word) for word in line.split())
            good = len(box) == 4 and all(0.0 <= share <= 1.0 for share in box)
        except ValueError:
            good = not line.strip()
            if good:
                continue
        if not good or cls not in range(classes):
            raise InvalidOption(
                f"{path}:{number} is not a label: give class 0 to {classes - 1}, centre x and "
                "y, width and height as shares of the image"
            )
        rows.append((cls, *box))
    return np.array(rows, np.float64).reshape(-1, 5)


def fastest(trials: Mapping[str, BuildComparison], bound: drift.Bound) -> str:
    """The fastest build that is within the bound and faster than the exact one; empty: none is."""
    better = {
        name: trial.ms / trial.exact_ms
        for name, trial in trials.items()
        if trial.ms < trial.exact_ms and not bound.exceeded_by(trial.drift)
    }
    return min(better, key=lambda name: better[name], default="")

"""Two builds of a version tried on the same images: how far apart they are, and how fast each is.

By calls of the client, as any caller's; the two take turns, so that what else the pool does meets
both alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from yolopool import drift, evaluation
from yolopool.client import Client
from yolopool.detections import Detections
from yolopool.errors import InvalidOption
from yolopool.records import Drift, ModelVersion

# Average precision looks at the whole curve.
LEAST_CONFIDENCE = 0.001
# Before times count: builds are loaded and warmed up.
WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """`exact_ms` and `ms`: the median forward pass of one image."""

    drift: Drift
    exact_ms: float
    ms: float


def run(
    client: Client,
    exact: ModelVersion,
    other: ModelVersion,
    images: Sequence[Path],
    labels: Path | None,
    told: Callable[[float], None] = lambda _: None,
) -> Trial:
    """Tries `other` beside `exact`, both builds of one version; `labels`: a folder of one .txt an
    image, a line an object: class, centre x and y, width and height in shares of the image. Raises
    what Detect raises, and InvalidOption for labels that are none.
    """
    asked = LEAST_CONFIDENCE if labels is not None else None
    for build in (exact, other):
        for _ in range(WARM_UPS):
            client.detect(images[0], build.name)
    pairs = []
    for number, image in enumerate(images):
        found = [client.detect(image, build.name, confidence=asked) for build in (exact, other)]
        pairs.append((found[0], found[1]))
        told((number + 1) / len(images))
    served = [(_served(a, exact.confidence), _served(b, exact.confidence)) for a, b in pairs]
    moved = drift.total(drift.between(a, b) for a, b in served)
    moved = replace(moved, exact=pairs[0][0].variant.rpartition("/")[0])
    if labels is not None:
        moved = _with_precision(moved, exact, images, pairs, labels)
    times = [[side.timing.inference_ms for side in sides] for sides in zip(*pairs, strict=True)]
    return Trial(moved, median(times[0]), median(times[1]))


def _served(found: Detections, confidence: float) -> Detections:
    """What is served of it: those above the version's threshold."""
    return found if found.classification is not None else found[found.confidence > confidence]


def _with_precision(
    moved: Drift,
    exact: ModelVersion,
    images: Sequence[Path],
    pairs: Sequence[tuple[Detections, Detections]],
    labels: Path,
) -> Drift:
    truths = {
        image.name: read_labels(labels / f"{image.stem}.txt", pair[0].image_size)
        for image, pair in zip(images, pairs, strict=True)
    }
    if not any(len(rows) for rows in truths.values()):
        raise InvalidOption(f"{labels} has no labels of these images: one .txt an image")
    classes = len(exact.class_names)
    precisions = []
    for side in zip(*pairs, strict=True):
        rows = {image.name: _rows(one) for image, one in zip(images, side, strict=True)}
        precisions.append(evaluation.mean_precision(rows, truths, classes))
    (exact50, exact95), (map50, map95) = precisions
    return replace(moved, exact_map50=exact50, exact_map50_95=exact95, map50=map50, map50_95=map95)


def _rows(found: Detections) -> NDArray[np.float64]:
    columns = (found.xyxy, found.confidence, found.class_id)
    return np.column_stack(columns).astype(np.float64).reshape(-1, 6)


def read_labels(path: Path, size: tuple[int, int]) -> NDArray[np.float64]:
    """Objects of one image of (width, height) pixels: float64 (n, 5) of corners and class; none
    where there is no file. Raises InvalidOption.
    """
    if not path.is_file():
        return np.zeros((0, 5))
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            cls, x, y, width, height = (float(word) for word in words)
        except ValueError as error:
            raise InvalidOption(
                f"{path}:{number} is no label: class, centre x and y, width and height"
            ) from error
        left, top = (x - width / 2) * size[0], (y - height / 2) * size[1]
        rows.append((left, top, left + width * size[0], top + height * size[1], cls))
    return np.array(rows, np.float64).reshape(-1, 5)


def fastest(trials: Mapping[str, Trial], bound: drift.Bound) -> str:
    """The build to serve by: within the bound and faster than the exact one; empty: none is."""
    better = {
        name: trial.ms / trial.exact_ms
        for name, trial in trials.items()
        if trial.ms < trial.exact_ms and not bound.exceeded_by(trial.drift)
    }
    return min(better, key=lambda name: better[name], default="")

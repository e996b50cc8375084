"""Compares two builds of a version on the same images: how far results drift, and how fast each is.

It calls Detect as any client does. The builds take turns, so that other load on the pool affects
both alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.model_records import Drift, ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation import drift
from yolopool.evaluation.pool_evaluation import found_of, read_folder
from yolopool.evaluation.tally import CONFIDENCE, Tally
from yolopool.evaluation.truths import NOTHING, Truths

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
    truths: Sequence[Truths] | None,
    progress: Callable[[float], None] = lambda _: None,
) -> BuildComparison:
    """Compares `other` with `exact`, both builds of one version. `truths` are the labels of each
    image, from `read_labels`. Raises what Detect raises.
    """
    asked = CONFIDENCE if truths is not None else None
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
        moved = _with_precision(moved, exact, pairs, truths)
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
    exact: ModelVersion,
    pairs: Sequence[tuple[Detections, Detections]],
    truths: Sequence[Truths],
) -> Drift:
    precisions = []
    for side in zip(*pairs, strict=True):
        counted = Tally(exact.task, len(exact.class_names))
        for found, real in zip(side, truths, strict=True):
            counted.add(found_of(found), real)
        precisions.append(counted.evaluation().precision)
    was, now = precisions
    return replace(
        moved,
        exact_map50=was.map50,
        exact_map50_95=was.map50_95,
        map50=now.map50,
        map50_95=now.map50_95,
    )


def read_labels(folder: Path, images: Sequence[Path], version: ModelVersion) -> list[Truths]:
    """What is on each image, by a folder of .txt files; without a file, nothing. Raises
    InvalidOption.
    """
    found = read_folder(images[0].parent, folder, version)
    truths = {image.name: image.truths for image in found}
    return [truths.get(image.name, NOTHING) for image in images]


def fastest(trials: Mapping[str, BuildComparison], bound: drift.Bound) -> str:
    """The fastest build that is within the bound and faster than the exact one; empty: none is."""
    better = {
        name: trial.ms / trial.exact_ms
        for name, trial in trials.items()
        if trial.ms < trial.exact_ms and not bound.exceeded_by(trial.drift)
    }
    return min(better, key=lambda name: better[name], default="")

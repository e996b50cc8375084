"""Answers of a stable version and of a candidate about made-up images, and ways to break one.

Both see the same objects, each with noise of its own, as two trainings of one architecture do: each
edge varies by 2 % of a side, the logit of a confidence by 0.35, and each finds things that are not
there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from yolopool.evaluation.agreement.matching import Array, Found

CLASSES = ("car", "person", "truck", "bicycle", "bus", "motorcycle")
WIDTH, HEIGHT = 1920, 1080
THRESHOLD = 0.25
# Longest sides in pixels.
SIDES = {"small": (12, 32), "medium": (32, 96), "large": (96, 300)}
SIDE_NOISE, LOGIT_NOISE = 0.02, 0.35


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: `failed`, or what was found, and the time on the worker."""

    found: Found
    ms: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """The objects of one image: corners (n, 4), classes (n,), how plain each is to see (n,)."""

    boxes: Array
    classes: np.ndarray
    logits: Array


BLANK = Found(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
NOTHING = Scene(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
Break = Callable[[Reply, np.random.Generator], Reply]


def scene(size: str, rng: np.random.Generator) -> Scene:
    """An image with objects of a size, or of all ("mixed"); some images are empty."""
    count = int(rng.poisson(3.0))
    names = list(SIDES) if size == "mixed" else [size]
    ranges = np.array([SIDES[name] for name in names], np.float64)[
        rng.integers(0, len(names), count)
    ].reshape(-1, 2)
    longer = np.exp(rng.uniform(np.log(ranges[:, 0]), np.log(ranges[:, 1])))
    shape = np.stack((longer, longer * rng.uniform(0.5, 1.0, count)), axis=1)
    turned = np.where(rng.random(count)[:, None] < 0.5, shape, shape[:, ::-1])
    low = rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - turned)
    weights = 1.0 / np.arange(1, len(CLASSES) + 1)
    classes = rng.choice(len(CLASSES), count, p=weights / weights.sum())
    return Scene(np.concatenate((low, low + turned), axis=1), classes, rng.normal(1.4, 1.0, count))


def reply(seen: Scene, rng: np.random.Generator, load: float = 1.0) -> Reply:
    """What a version in order answers; `load`: what everything takes longer at the moment."""
    ms, failed = 12.0 * load * float(rng.lognormal(0.0, 0.2)), bool(rng.random() < 0.001)
    if seen is NOTHING:
        return Reply(BLANK, ms, failed)
    count = len(seen.classes)
    sides = np.tile(seen.boxes[:, 2:] - seen.boxes[:, :2], (1, 2))
    boxes = seen.boxes + rng.normal(0.0, SIDE_NOISE, (count, 4)) * sides
    scores = 1.0 / (1.0 + np.exp(-(seen.logits + rng.normal(0.0, LOGIT_NOISE, count))))
    ghosts = int(rng.poisson(0.1))
    corner = rng.uniform(0, 1, (ghosts, 2)) * (WIDTH - 60, HEIGHT - 60)
    found = Found(
        np.concatenate((boxes, np.concatenate((corner, corner + 40.0), axis=1))),
        np.concatenate((seen.classes, rng.integers(0, len(CLASSES), ghosts))).astype(np.int64),
        np.concatenate((scores, rng.uniform(THRESHOLD, 0.45, ghosts))),
    )
    return Reply(shown(found), ms, failed)


def shown(found: Found) -> Found:
    keep = found.scores > THRESHOLD
    return Found(found.boxes[keep], found.classes[keep], found.scores[keep])


def retrained(seed: int) -> Break:
    """A good candidate: off by a little everywhere, each by another amount, to 0.25 px, 0.02 of
    confidence and 5 % of time.
    """
    rng = np.random.default_rng(seed)
    moved, surer = rng.uniform(-0.25, 0.25, 2), rng.uniform(-0.02, 0.02)
    slower = rng.uniform(0.95, 1.05)

    def change(one: Reply, _: np.random.Generator) -> Reply:
        if one.found is BLANK:
            return replace(one, ms=one.ms * slower)
        scores = np.clip(one.found.scores + surer, 0.0, 1.0)
        boxes = one.found.boxes + np.tile(moved, 2)
        return replace(
            one, found=shown(replace(one.found, boxes=boxes, scores=scores)), ms=one.ms * slower
        )

    return change


def shifted(pixels: float) -> Break:
    """Every box lies to the right of where it should."""
    by = np.array([pixels, 0.0, pixels, 0.0])
    return lambda one, _: replace(one, found=replace(one.found, boxes=one.found.boxes + by))


def swapped(first: int, second: int) -> Break:
    def change(one: Reply, _: np.random.Generator) -> Reply:
        names = np.arange(len(CLASSES))
        names[[first, second]] = names[[second, first]]
        return replace(one, found=replace(one.found, classes=names[one.found.classes]))

    return change


def lost(cls: int) -> Break:
    def change(one: Reply, _: np.random.Generator) -> Reply:
        keep = one.found.classes != cls
        found = Found(one.found.boxes[keep], one.found.classes[keep], one.found.scores[keep])
        return replace(one, found=found)

    return change


def unsure(divisor: float) -> Break:
    def change(one: Reply, _: np.random.Generator) -> Reply:
        return replace(one, found=shown(replace(one.found, scores=one.found.scores / divisor)))

    return change


def slow(factor: float) -> Break:
    return lambda one, _: replace(one, ms=one.ms * factor)


def failing(share: float) -> Break:
    return lambda one, rng: replace(one, failed=one.failed or bool(rng.random() < share))


COMMON, RARE = 0, len(CLASSES) - 1
BROKEN: dict[str, Break] = {
    "boxes + 2 px": shifted(2.0),
    "boxes + 5 px": shifted(5.0),
    "boxes + 10 px": shifted(10.0),
    "two classes swapped": swapped(0, 1),
    "two rare classes swapped": swapped(RARE - 1, RARE),
    "a class lost": lost(COMMON),
    "a rare class lost": lost(RARE),
    "confidence / 2": unsure(2.0),
    "slow x 2": slow(2.0),
    "5 % fail": failing(0.05),
}

"""Compares two versions on the same images, as a rollout does on callers' requests.

It calls Detect as any client does, each image on one and then on the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from yolopool.client.client import Client
from yolopool.client.detections import Detections, Timing
from yolopool.client.rollout.rollout_records import Comparison, Counted, Measure
from yolopool.errors import InvalidOption
from yolopool.evaluation.agreement.disagreement import Tolerance, disagreement
from yolopool.evaluation.agreement.evidence import SIZES, Evidence
from yolopool.evaluation.agreement.matching import (
    MAX_OBJECTS,
    Found,
    Ints,
    class_name,
    class_number,
)
from yolopool.evaluation.agreement.verdicts import judge

# The rates of a rollout's usual step.
FALSE_ALARMS, MISSED = 0.01, 0.05
# Requests of each before times count, to load and warm up both.
WARM_UPS = 2
WORST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Worst:
    """An image on which both disagree by `size`, from 0 (not at all) to 3."""

    size: float
    image: Path
    stable: Detections
    candidate: Detections


@dataclass(frozen=True, slots=True)
class Compared:
    """`names`: name@version of both. `worst`: at most WORST images, the worst first."""

    names: tuple[str, str]
    comparison: Comparison
    worst: tuple[Worst, ...]


def compare(
    client: Client,
    stable: str,
    candidate: str,
    images: Sequence[Path],
    allowed: Tolerance,
    progress: Callable[[float], None] = lambda _: None,
) -> Compared:
    """Raises what Detect raises, and InvalidOption if both names mean one version."""
    both = (stable, candidate)
    first = [client.detect(images[0], name) for _ in range(WARM_UPS) for name in both]
    names = first[0].model, first[1].model
    known = client.model(names[0]).versions[0].class_names
    if names[0] == names[1]:
        raise InvalidOption(f"both are {names[0]}: give two versions")
    evidence, worst = Evidence(allowed), list[Worst]()
    for number, image in enumerate(images):
        # By turns, so that what was just in a cache helps neither.
        order = names if number % 2 else names[::-1]
        found = {name: client.detect(image, name) for name in order}
        ours, theirs = found[names[0]], found[names[1]]
        pair = found_in(ours, known), found_in(theirs, known)
        apart = disagreement(*pair, allowed)
        evidence.note_outcome(stable_failed=False, candidate_failed=False)
        evidence.note_times(own_ms(ours.timing), own_ms(theirs.timing))
        evidence.note_images(*pair, apart)
        if apart.size > 0.0:
            worst.append(Worst(apart.size, image, ours, theirs))
            worst.sort(key=lambda one: -one.size)
            del worst[WORST:]
        progress((number + 1) / len(images))
    return Compared(names, comparison_of(evidence, known), tuple(worst))


def comparison_of(evidence: Evidence, class_names: Sequence[str]) -> Comparison:
    """What evidence says, for people."""
    verdicts = judge(evidence, class_names, FALSE_ALARMS, MISSED).verdicts
    stable, matched, candidate = evidence.objects.astype(int).tolist()
    return Comparison(
        tuple(
            Measure(one.measure, str(one.finding), one.samples, one.value, one.allowed)
            for one in verdicts
            if one.measure != "errors"
        ),
        evidence.requests,
        evidence.images,
        tuple(map(Counted, SIZES, stable, candidate, matched)),
        tuple(
            Counted(
                class_name(cls, class_names),
                int(counts[0]),
                int(counts[1]),
            )
            for cls, counts in sorted(evidence.classes.items())
        ),
    )


def own_ms(timing: Timing) -> float:
    """On the worker, without waiting."""
    return timing.decode_ms + timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms


def found_in(answer: Detections, known: Sequence[str]) -> Found:
    """`known`: the stable version's class names. The likeliest class of a whole image is one object
    as large as the image.
    """
    top = answer.classification
    if top is None:
        most = answer[:MAX_OBJECTS]
        classes = _numbers(most.class_id, most.class_name, known)
        return Found(most.xyxy.astype(np.float64), classes, most.confidence.astype(np.float64))
    box = np.array([[0.0, 0.0, *answer.image_size]])
    classes = _numbers(top.class_id[:1], top.class_name[:1], known)
    return Found(box, classes, top.probability[:1].astype(np.float64))


def _numbers(ids: Ints, names: Sequence[str], known: Sequence[str]) -> Ints:
    pairs = zip(ids.tolist(), names, strict=True)
    return np.array([class_number(*pair, known) for pair in pairs], np.int64)


def side_by_side(stable: Image.Image, candidate: Image.Image) -> Image.Image:
    """One picture of two: the stable version's on the left."""
    height = max(stable.height, candidate.height)
    both = Image.new("RGB", (stable.width + 4 + candidate.width, height), "white")
    both.paste(stable, (0, 0))
    both.paste(candidate, (stable.width + 4, 0))
    return both

"""Comparing two builds: on which compute class, and what becomes of several."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.client.model_records import ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation import build_comparison

IMAGES = [Path(f"{number}.png") for number in range(3)]


class Named:
    """What a comparison reads of a build."""

    def __init__(self, name: str) -> None:
        self.name, self.confidence, self.class_names = name, 0.25, ("circle",)


class Answering:
    """A pool whose devices take turns, each of a compute class."""

    def __init__(self, *classes: str) -> None:
        self._classes: Iterator[str] = cycle(classes)
        self.asked: list[Path] = []

    def detect(self, image: Path, model: str, confidence: float | None = None) -> Detections:
        exact = model == "exact"
        self.asked.append(image)
        return Detections(
            xyxy=np.array([[0, 0, 9, 9 if exact else 8]], np.float32),
            confidence=np.array([0.9], np.float32),
            class_id=np.array([0]),
            class_name=("circle",),
            variant="torch/fp32/cpu" if exact else "openvino/int8/cpu",
            # The exact build may answer from anywhere.
            compute_class="any" if exact else next(self._classes),
        )


def compare(*classes: str, pool: Answering | None = None) -> build_comparison.BuildComparison:
    exact, other = (cast(ModelVersion, Named(name)) for name in ("exact", "int8"))
    client: Any = pool or Answering(*classes)
    return build_comparison.compare(cast(Client, client), exact, other, IMAGES, None)


def test_a_drift_is_of_the_class_that_answered() -> None:
    drift = compare("avx2").drift
    assert (drift.compute_class, drift.exact, drift.matched) == ("avx2", "torch/fp32", 3)
    assert compare("").drift.compute_class == ""


def test_answers_of_several_classes_are_not_one_drift() -> None:
    pool = Answering("avx2", "amx")
    with pytest.raises(InvalidOption, match=r"\(amx, avx2\): name one with --compute-class"):
        compare(pool=pool)
    assert IMAGES[2] not in pool.asked  # the second image told

"""Run by Python at its start where this folder is on PYTHONPATH: a simulated device that takes no
time and looks at no pixel, so that what is left is the cost of everything around a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import U8
from worker.backends.base import BatchResult
from worker.backends.simulated import SimulatedModel
from worker.postprocess.outputs import Candidates, NmsOptions

_BOX = Candidates(
    np.array([[8, 8, 24, 24]], np.float32), np.array([0.9], np.float32), np.array([0], np.int64)
)


@dataclass(frozen=True, slots=True)
class _Pass:
    """All stages in one: one box an image."""

    images: int

    def forward(self) -> "_Pass":
        return self

    def finish(self) -> BatchResult:
        return BatchResult((_BOX,) * self.images, 0.0, 0.0, 0.0)


def stage(self: SimulatedModel, images: Sequence[U8], options: Sequence[NmsOptions]) -> _Pass:
    """In place of `SimulatedModel.stage`."""
    return _Pass(len(images))


SimulatedModel.stage = stage  # type: ignore[method-assign, assignment]  # what this file is for

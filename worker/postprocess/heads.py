"""Turns a head's rows into candidates, for each task, alike for every runtime.

A row is a box (4), class scores (nc) and what the task adds (extra): mask coefficients, keypoints
or the angle, laid out as by the model library's heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import F32, is_finite
from worker.postprocess import nms, rotated_boxes
from worker.postprocess.outputs import (
    Candidates,
    Keypoints,
    MaskParts,
    NmsOptions,
    Probabilities,
    Rotations,
    TaskOutput,
    not_finite,
)

DETECT, SEGMENT, POSE = "detect", "segment", "pose"
OBB, CLASSIFY = "obb", "classify"


@dataclass(frozen=True, slots=True)
class Head:
    """The layout of a head's rows: `classes` scores, and what the task adds. For pose these are
    `keypoint_values` for each of `keypoints`.
    """

    task: str
    classes: int
    keypoints: int = 0
    keypoint_values: int = 0
    mask_coefficients: int = 0
    angles: int = 0

    def one_to_many(
        self,
        boxes: F32,
        confidence: F32,
        classes: nms.Classes,
        extra: F32,
        prototypes: F32 | None,
        options: Sequence[NmsOptions],
    ) -> tuple[Candidates, ...]:
        """Suppresses a batch as nms.one_to_many does. `extra` is float32 (batch, extra, n); for
        segment, `prototypes` are float32 (batch, nm, h, w).
        """
        angles = extra[:, 0] if self.task == OBB else None
        kept = nms.one_to_many(boxes, confidence, classes, options, angles)
        return tuple(
            self._candidates(rest, extra[image][:, rest.rows].T, _of(prototypes, image, wanted))
            for image, (rest, wanted) in enumerate(zip(kept, options, strict=True))
        )

    def end_to_end(
        self, finals: Sequence[F32], prototypes: F32 | None, options: Sequence[NmsOptions]
    ) -> tuple[Candidates, ...]:
        """Filters final rows, float32 (k, 6 + extra) for each image: box, confidence, class, extra.
        A box is its corners; for obb it is centre, width and height.
        """
        candidates = []
        for image, (final, wanted) in enumerate(zip(finals, options, strict=True)):
            kept = nms.end_to_end(final, wanted)
            own = _of(prototypes, image, wanted)
            candidates.append(self._candidates(kept, final[kept.rows, 6:], own))
        return tuple(candidates)

    def _candidates(self, kept: nms.Suppressed, extra: F32, prototypes: F32 | None) -> Candidates:
        if not kept.finite or (extra.size and not is_finite(extra)):
            return not_finite()
        boxes, task_output = kept.boxes, self._task_output(kept.boxes, extra, prototypes)
        if isinstance(task_output, Rotations):
            boxes = rotated_boxes.hulls(task_output.boxes)
        return Candidates(
            np.ascontiguousarray(boxes),
            np.ascontiguousarray(kept.confidence),
            kept.class_id.astype(np.int64),
            task_output,
        )

    def _task_output(self, boxes: F32, extra: F32, prototypes: F32 | None) -> TaskOutput | None:
        if self.task == SEGMENT and prototypes is not None:
            return MaskParts(np.ascontiguousarray(extra), prototypes)
        if self.task == POSE:
            # Given, not inferred: an image without detections has no rows to infer it from.
            form = len(extra), self.keypoints, self.keypoint_values
            return Keypoints(np.ascontiguousarray(extra).reshape(form))
        if self.task == OBB:
            return Rotations(np.concatenate((boxes, extra[:, :1]), axis=1))
        return None


def classified(probabilities: F32) -> tuple[Candidates, ...]:
    """The candidates of a model that classifies, from probabilities float32 (batch, nc)."""
    return tuple(
        Candidates(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            Probabilities(row.copy()),
        )
        if is_finite(row)
        else not_finite()
        for row in probabilities
    )


def _of(prototypes: F32 | None, image: int, options: NmsOptions) -> F32 | None:
    """The image's prototypes, copied, so that they do not keep the whole batch's alive."""
    if prototypes is None or not options.masks:
        return None
    return np.array(prototypes[image], np.float32, order="K")

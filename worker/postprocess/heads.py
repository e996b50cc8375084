"""How a head's rows become candidates, task by task; the same for every runtime. Numpy alone.

A row is a box (4), class scores (nc) and what the task gives beside (extra): mask coefficients,
keypoints, or the angle; as the model library's heads lay them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import F32
from worker.postprocess import nms, rotated_boxes
from worker.postprocess.outputs import (
    Beside,
    Candidates,
    Keypoints,
    MaskParts,
    NmsOptions,
    Probabilities,
    Rotations,
)

DETECT, SEGMENT, POSE = "detect", "segment", "pose"
OBB, CLASSIFY = "obb", "classify"


@dataclass(frozen=True, slots=True)
class Head:
    """What a head gives: `classes` scores a row, and beside them what its task has: of pose,
    `keypoint_values` of each of `keypoints`.
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
        """Suppresses a batch: as nms.one_to_many, with extra float32 (batch, extra, n) and, of
        segment, prototypes float32 (batch, nm, h, w).
        """
        angles = extra[:, 0] if self.task == OBB else None
        kept = nms.one_to_many(boxes, confidence, classes, options, angles)
        return tuple(
            self._candidates(one, extra[image][:, one.rows].T, _of(prototypes, image, asked))
            for image, (one, asked) in enumerate(zip(kept, options, strict=True))
        )

    def end_to_end(
        self, finals: Sequence[F32], prototypes: F32 | None, options: Sequence[NmsOptions]
    ) -> tuple[Candidates, ...]:
        """Filters final rows, one float32 (k, 6 + extra) an image: box, confidence, class, extra.
        A box is corners, or of obb centre, width and height.
        """
        found = []
        for image, (final, asked) in enumerate(zip(finals, options, strict=True)):
            kept = nms.end_to_end(final, asked)
            of_image = _of(prototypes, image, asked)
            found.append(self._candidates(kept, final[kept.rows, 6:], of_image))
        return tuple(found)

    def _candidates(self, kept: nms.Suppressed, extra: F32, prototypes: F32 | None) -> Candidates:
        boxes, beside = kept.boxes, self._beside(kept.boxes, extra, prototypes)
        if isinstance(beside, Rotations):
            boxes = rotated_boxes.hulls(beside.boxes)
        return Candidates(
            np.ascontiguousarray(boxes),
            np.ascontiguousarray(kept.confidence),
            kept.class_id.astype(np.int64),
            beside,
        )

    def _beside(self, boxes: F32, extra: F32, prototypes: F32 | None) -> Beside | None:
        if self.task == SEGMENT and prototypes is not None:
            return MaskParts(np.ascontiguousarray(extra), prototypes)
        if self.task == POSE:
            # Said, not inferred: an image without detections has no rows to infer from.
            form = len(extra), self.keypoints, self.keypoint_values
            return Keypoints(np.ascontiguousarray(extra).reshape(form))
        if self.task == OBB:
            return Rotations(np.concatenate((boxes, extra[:, :1]), axis=1))
        return None


def classified(probabilities: F32) -> tuple[Candidates, ...]:
    """Answers of a model that classifies: probabilities float32 (batch, nc)."""
    return tuple(
        Candidates(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            Probabilities(one.copy()),
        )
        for one in probabilities
    )


def _of(prototypes: F32 | None, image: int, options: NmsOptions) -> F32 | None:
    """A copy, so that one image's masks do not keep the whole batch's prototypes."""
    if prototypes is None or not options.masks:
        return None
    return np.array(prototypes[image], np.float32, order="K")

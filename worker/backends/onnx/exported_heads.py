"""Reads the outputs of ONNX graphs that yolopool exported, for each task; `layouts` reads others.

Pure. Outputs are the rows of a one-to-many head and, for segment, its prototypes. An output of
another shape than the head's is an error, and never boxes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.arrays import F32, I64
from worker.postprocess import heads
from worker.postprocess.heads import Head
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed
from yolopool.v1.pack_pb2 import PackManifest


def head_of(manifest: PackManifest) -> Head:
    """The head that a manifest describes."""
    head = manifest.head
    return Head(
        manifest.task,
        len(manifest.class_names),
        head.keypoints,
        head.keypoint_values,
        head.mask_coefficients,
        head.angles,
    )


def candidates(
    head: Head,
    outputs: Sequence[npt.NDArray[np.generic]],
    options: Sequence[NmsOptions],
) -> tuple[Candidates, ...]:
    """The candidates of each image, after NMS. `options` has one entry for each image; rows beyond
    belong to images that fill the batch up.

    rows: (b, nc) for classify, else (b, 4 + nc + extra, n). Raises InferenceFailed.
    """
    rows, *more = (np.asarray(output, np.float32)[: len(options)] for output in outputs)
    if head.task == heads.CLASSIFY:
        _check(rows.ndim == 2 and rows.shape[1] == head.classes, rows)
        return heads.classified(rows)
    extra = head.keypoints * head.keypoint_values + head.mask_coefficients + head.angles
    prototypes = None
    if head.task == heads.SEGMENT:
        (prototypes,) = more
        fits = prototypes.ndim == 4 and prototypes.shape[1] == head.mask_coefficients
        _check(fits, prototypes)
    _check(rows.ndim == 3 and rows.shape[1] == 4 + head.classes + extra, rows)
    boxes, scores, extra_rows = np.split(rows, (4, 4 + head.classes), axis=1)

    def classes(image: int, some: I64) -> I64:
        best: I64 = scores[image][:, some].argmax(0)
        return best

    return head.one_to_many(boxes, scores.max(1), classes, extra_rows, prototypes, options)


def _check(fits: bool, found: F32) -> None:
    if not fits:
        raise InferenceFailed(
            f"the graph answers in the form {found.shape}, which is none of its head's: build the "
            "version again"
        )

"""From the answer of a graph that was exported here to candidates, task by task; what other files
answer is read by `layouts`.

Pure. Outputs are the rows of a one-to-many head and, of segment, its prototypes; a form that is
none of the head's is an error and never boxes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.arrays import I64
from worker.postprocess import heads
from worker.postprocess.heads import Head
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed
from yolopool.v1.pack_pb2 import PackManifest

F32 = npt.NDArray[np.float32]


def head_of(manifest: PackManifest) -> Head:
    """What a manifest says of its head."""
    said = manifest.head
    return Head(
        manifest.task,
        len(manifest.class_names),
        said.keypoints,
        said.keypoint_values,
        said.mask_coefficients,
        said.angles,
    )


def candidates(
    head: Head,
    outputs: Sequence[npt.NDArray[np.generic]],
    options: Sequence[NmsOptions],
) -> tuple[Candidates, ...]:
    """What is left of each image of a batch; one options an image, those beyond filled it up.

    rows: (b, nc) of classify, else (b, 4 + nc + extra, n). Raises InferenceFailed.
    """
    rows, *more = (np.asarray(one, np.float32)[: len(options)] for one in outputs)
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
    boxes, scores, beside = np.split(rows, (4, 4 + head.classes), axis=1)

    def classes(image: int, some: I64) -> I64:
        best: I64 = scores[image][:, some].argmax(0)
        return best

    return head.one_to_many(boxes, scores.max(1), classes, beside, prototypes, options)


def _check(fits: bool, found: F32) -> None:
    if not fits:
        raise InferenceFailed(
            f"the graph answers in the form {found.shape}, which is none of its head's: build the "
            "version again"
        )

"""One architecture: its skeleton prepared for inference, shared by all its models.

Boxes are decoded as the library does, but always in float32. Anchors are kept for several shapes,
where the library keeps those of one. Used on the device thread.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch

from worker.backends.onnx import exported_heads
from worker.backends.pytorch import skeleton
from worker.postprocess import heads
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import PackInvalid
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END

_MAX_ANCHORS = 64
Anchors = tuple[torch.Tensor, torch.Tensor]
# A prediction; for segment with its prototypes.
Output = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class Architecture:
    """A caller binds its weights before it runs the module."""

    def __init__(self, text: bytes) -> None:
        self.skeleton = skeleton.Skeleton(text)
        self.module: Any = self.skeleton.module
        head = self._head = _head_of(self.module)
        head.export = True  # return the answer without the feature maps
        self.head = _layout_of(head)
        # Tensors of the decoding, which stay in float32.
        self.exact: frozenset[int] = frozenset()
        self.end_to_end = False
        if self.head.task != heads.CLASSIFY:
            head._inference = self._decode
            self.exact = self.skeleton.indices_under(head.dfl)
            self.end_to_end = bool(head.end2end)
        if self.end_to_end:
            # Limits differ from image to image, so `best` applies them instead.
            head.postprocess = _unchanged
        self.users = 0
        # Measured working memory by pixels of a pass; only CUDA reports it.
        self.peaks: dict[tuple[torch.dtype, int], int] = {}
        self._anchors: dict[tuple[torch.Size, ...], Anchors] = {}
        self._bound: object = None

    def check(self, manifest: PackManifest) -> None:
        """Raises PackInvalid if the manifest describes another head than the skeleton has."""
        described = exported_heads.head_of(manifest)
        if described != self.head:
            raise PackInvalid(
                f"the pack's skeleton has the head {self.head}, its manifest says {described}: "
                "import the model again; the pack is damaged or forged"
            )
        if self.end_to_end != (manifest.head_mode == HEAD_MODE_END_TO_END):
            raise PackInvalid("the pack's head is not of its head_mode: import the model again")

    def check_answer(self, prediction: torch.Tensor, prototypes: torch.Tensor | None) -> None:
        """Raises PackInvalid if the layers give another number of classes or prototypes than the
        head says. With another width of rows the head itself fails.
        """
        if self.head.task == heads.CLASSIFY:
            given, said = prediction.shape[1], self.head.classes
        elif self.head.task == heads.SEGMENT and prototypes is not None:
            given, said = prototypes.shape[1], self.head.mask_coefficients
        else:
            return
        if given != said:
            raise PackInvalid(
                f"the pack's layers give {given} classes or prototypes, its head says {said}: "
                "import the model again; the pack is damaged or forged"
            )

    def bind(self, owner: object, tensors: Sequence[torch.Tensor]) -> None:
        if self._bound is not owner:
            self.skeleton.bind(tensors)
            self._bound = owner

    def unbind(self, owner: object) -> None:
        if self._bound is owner:
            self.skeleton.unbind()
            self._bound = None

    def anchors(self) -> tuple[torch.Tensor, ...]:
        """All tensors that passes read, beside weights and input."""
        return tuple(tensor for pair in self._anchors.values() for tensor in pair)

    def best(self, prediction: torch.Tensor, options: NmsOptions) -> torch.Tensor:
        """The final rows of one image of an end-to-end head: float (k, 6 + extra) of box,
        confidence, class and extra. prediction: (1, n, 4 + nc + extra).
        """
        head = self._head
        # As BasePredictor does: never fewer than the head gives by default.
        head.max_det, head.agnostic_nms = max(options.max_detections, 300), options.agnostic
        rows: torch.Tensor = type(head).postprocess(head, prediction)[0]
        return rows

    def _decode(self, answer: dict[str, Any]) -> torch.Tensor:
        """`_inference` of ultralytics' heads, in float32: half precision has steps of half a pixel
        beyond 512. Returns (batch, 4 + nc + extra, n).
        """
        head, task = self._head, self.head.task
        anchors, strides = self._anchors_of(answer["feats"])
        distances = head.dfl(answer["boxes"].float())
        rows = [answer["scores"].float().sigmoid()]
        if task == heads.OBB:
            angle = answer["angle"].float()
            boxes = head.decode_bboxes(distances, anchors.unsqueeze(0), angle)
            rows.append(angle)
        else:
            boxes = head.decode_bboxes(distances, anchors.unsqueeze(0))
        if task == heads.SEGMENT:
            rows.append(answer["mask_coefficient"].float())
        if task == heads.POSE:
            # `kpts_decode` reads them from the module.
            head.anchors, head.strides = anchors, strides
            rows.append(head.kpts_decode(answer["kpts"].float()))
        return torch.cat((boxes * strides, *rows), 1)

    def _anchors_of(self, features: Sequence[torch.Tensor]) -> Anchors:
        """Tensors that never change: captured graphs go on reading them."""
        from ultralytics.utils.tal import make_anchors

        shapes = tuple(level.shape[2:] for level in features)
        known = self._anchors.get(shapes)
        if known is None:
            if len(self._anchors) >= _MAX_ANCHORS:
                del self._anchors[next(iter(self._anchors))]
            levels = [
                level.new_empty((1, 1, *level.shape[2:]), dtype=torch.float32) for level in features
            ]
            points, strides = make_anchors(levels, self._head.stride, 0.5)
            known = self._anchors[shapes] = points.transpose(0, 1), strides.transpose(0, 1)
        return known


def _unchanged(prediction: torch.Tensor) -> torch.Tensor:
    return prediction


def _head_of(module: Any) -> Any:
    from ultralytics.nn.modules import head as library

    try:
        head = module.model[-1]
    except (AttributeError, TypeError, IndexError) as error:
        raise PackInvalid("the pack's model has no layers: import the model again") from error
    known = (library.Detect, library.Segment, library.Pose, library.OBB)
    if isinstance(head, library.Detect):
        if type(head)._inference in [cls._inference for cls in known]:
            return head
    elif isinstance(head, library.Classify):
        return head
    raise PackInvalid(f"the pack's last layer {type(head).__name__} is no head that is served")


def _layout_of(head: Any) -> heads.Head:
    """Raises PackInvalid for a head whose attributes are not whole numbers."""
    try:
        found = _attributes_of(head)
    except (AttributeError, TypeError, ValueError) as error:
        raise PackInvalid(
            f"the pack's head does not say what it gives ({error}): import the model again"
        ) from error
    if not all(type(value) is int for value in astuple(found)[1:]):
        raise PackInvalid(f"the pack's head says {found}: import the model again")
    return found


def _attributes_of(head: Any) -> heads.Head:
    from ultralytics.nn.modules import head as library

    if isinstance(head, library.Classify):
        return heads.Head(heads.CLASSIFY, head.linear.out_features)
    if isinstance(head, library.Pose):
        keypoints, values = head.kpt_shape
        return heads.Head(heads.POSE, head.nc, keypoints, values)
    if isinstance(head, library.Segment):
        return heads.Head(heads.SEGMENT, head.nc, mask_coefficients=head.nm)
    if isinstance(head, library.OBB):
        return heads.Head(heads.OBB, head.nc, angles=head.ne)
    return heads.Head(heads.DETECT, head.nc)

"""One architecture: its skeleton made ready for inference, shared by all its models.

Decoding is the library's in float32, whatever the layers compute in; anchors are kept here by
shape, where the library keeps one shape in the module. Of the device thread.
"""

from collections.abc import Sequence
from typing import Any

import torch

from worker.backends import skeleton
from worker.backends.base import NmsOptions
from yolopool.errors import PackInvalid

_KEPT_ANCHORS = 64
Anchors = tuple[torch.Tensor, torch.Tensor]


class Architecture:
    """Whoever runs binds its weights first."""

    def __init__(self, text: bytes) -> None:
        self.skeleton = skeleton.Skeleton(text)
        self.module: Any = self.skeleton.module
        head = self._head = _head_of(self.module)
        head.export = True  # only the answer; the feature maps may go
        head._inference = self._decode
        self.end_to_end = bool(head.end2end)
        if self.end_to_end:
            # Limits differ from image to image: taken out here, applied to each in `best`.
            head.postprocess = _unchanged
        # Of the decoding, which is in float32.
        self.exact = self.skeleton.indices_under(head.dfl)
        self.users = 0
        # Measured working memory by pixels of a pass; CUDA alone tells it.
        self.peaks: dict[tuple[torch.dtype, int], int] = {}
        self._anchors: dict[tuple[torch.Size, ...], Anchors] = {}
        self._bound: object = None

    def bind(self, owner: object, tensors: Sequence[torch.Tensor]) -> None:
        if self._bound is not owner:
            self.skeleton.bind(tensors)
            self._bound = owner

    def unbind(self, owner: object) -> None:
        if self._bound is owner:
            self.skeleton.unbind()
            self._bound = None

    def anchors(self) -> tuple[torch.Tensor, ...]:
        """All that passes read beside weights and input."""
        return tuple(tensor for pair in self._anchors.values() for tensor in pair)

    def best(self, prediction: torch.Tensor, options: NmsOptions) -> torch.Tensor:
        """The final rows of one image of an end-to-end head: float (k, 6) of corners, confidence,
        class. prediction: (1, n, 4 + nc).
        """
        head = self._head
        # As BasePredictor does it: never fewer than the head gives by itself.
        head.max_det, head.agnostic_nms = max(options.max_detections, 300), options.agnostic
        rows: torch.Tensor = type(head).postprocess(head, prediction)[0]
        return rows

    def _decode(self, answer: dict[str, Any]) -> torch.Tensor:
        """Detect._inference of ultralytics, in float32: half of it has steps of half a pixel
        beyond 512.
        """
        anchors, strides = self._anchors_of(answer["feats"])
        distances = self._head.dfl(answer["boxes"].float())
        boxes = self._head.decode_bboxes(distances, anchors.unsqueeze(0)) * strides
        return torch.cat((boxes, answer["scores"].float().sigmoid()), 1)

    def _anchors_of(self, features: Sequence[torch.Tensor]) -> Anchors:
        """Tensors that stay as they are: a captured graph goes on reading them."""
        from ultralytics.utils.tal import make_anchors

        shapes = tuple(level.shape[2:] for level in features)
        known = self._anchors.get(shapes)
        if known is None:
            if len(self._anchors) >= _KEPT_ANCHORS:
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
    from ultralytics.nn.modules.head import Detect

    try:
        head = module.model[-1]
    except (AttributeError, TypeError, IndexError) as error:
        raise PackInvalid("the pack's model has no layers: import the model again") from error
    if not isinstance(head, Detect) or type(head)._inference is not Detect._inference:
        raise PackInvalid(f"the pack's last layer {type(head).__name__} is no detection head")
    return head

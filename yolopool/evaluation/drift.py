"""How far the results of one build differ from those of another on the same images. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from yolopool.client.detections import Detections
from yolopool.client.masks import Mask
from yolopool.client.model_records import Drift
from yolopool.evaluation import average_precision
from yolopool.evaluation.agreement.matching import MIN_OVERLAP, matched
from yolopool.evaluation.average_precision import Array


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a build may drift and still replace the exact one.

    `largest_px` is the movement of a side. `missed` is the share of the exact build's objects that
    it may miss, or find in addition. `map_loss` is the loss of mAP50-95, if there are labels.
    """

    largest_px: float = 5.0
    missed: float = 0.01
    map_loss: float = 0.01

    def exceeded_by(self, drift: Drift) -> str:
        """Which bounds a drift exceeds, in words; empty: none."""
        objects = max(1, drift.objects)
        said = []
        if not drift.objects:
            said.append("the exact build found nothing on the images: give others")
        if drift.largest_px > self.largest_px:
            said.append(f"a side moved by {drift.largest_px:.2f} px, allowed {self.largest_px:g}")
        for count, what in ((drift.objects - drift.matched, "missed"), (drift.extra, "extra")):
            if count > self.missed * objects:
                said.append(f"{count} of {drift.objects} objects {what}, allowed {self.missed:.0%}")
        if drift.map_loss is not None and drift.map_loss > self.map_loss:
            said.append(f"{drift.map_loss:.4f} mAP50-95 lost, allowed {self.map_loss:g}")
        return "; ".join(said)


def compare(exact: Detections, other: Detections) -> Drift:
    """The drift on one image.

    Each exact object, most confident first, is matched with the unmatched object of its class that
    overlaps it most, by at least MIN_OVERLAP. For classifications, the likeliest classes are
    compared.
    """
    if exact.classification is not None and other.classification is not None:
        return _between_classes(exact, other)
    overlaps = average_precision.iou(exact.xyxy.astype(np.float64), other.xyxy.astype(np.float64))
    if exact.masks is not None and other.masks is not None:
        overlaps = _mask_overlaps(exact.masks, other.masks, overlaps)
    scores = exact.confidence.astype(np.float64)
    pairs = matched(overlaps, exact.class_id, scores, other.class_id).tolist()
    pixels, confidence = 0.0, 0.0
    for index, best in pairs:
        pixels = max(pixels, _distance(exact, index, other, best))
        moved = abs(float(exact.confidence[index]) - float(other.confidence[best]))
        confidence = max(confidence, moved)
    return Drift(
        images=1,
        objects=len(exact),
        matched=len(pairs),
        extra=len(other) - len(pairs),
        largest_px=pixels,
        largest_confidence=confidence,
    )


def total(drifts: Iterable[Drift]) -> Drift:
    """The drift over several images: the sums of counts, the largest of differences."""
    whole = Drift()
    for drift in drifts:
        whole = replace(
            whole,
            images=whole.images + drift.images,
            objects=whole.objects + drift.objects,
            matched=whole.matched + drift.matched,
            extra=whole.extra + drift.extra,
            largest_px=max(whole.largest_px, drift.largest_px),
            largest_confidence=max(whole.largest_confidence, drift.largest_confidence),
        )
    return whole


def _between_classes(exact: Detections, other: Detections) -> Drift:
    left, right = exact.classification, other.classification
    assert left is not None
    assert right is not None
    same = bool(left.class_id[0] == right.class_id[0])
    moved = abs(float(left.probability[0]) - float(right.probability[0])) if same else 0.0
    return Drift(
        images=1, objects=1, matched=int(same), extra=int(not same), largest_confidence=moved
    )


def _mask_overlaps(left: Sequence[Mask], right: Sequence[Mask], boxes: Array) -> Array:
    """The smaller of the overlaps of masks and boxes, (n, m); masks count only where boxes do."""
    ones, twos = ([mask.to_array() for mask in masks] for masks in (left, right))
    found = boxes.copy()
    for one, two in zip(*np.nonzero(boxes >= MIN_OVERLAP), strict=True):
        union = int(np.count_nonzero(ones[one] | twos[two]))
        both = int(np.count_nonzero(ones[one] & twos[two])) / max(1, union)
        found[one, two] = min(boxes[one, two], both)
    return found


def _distance(left: Detections, one: int, right: Detections, two: int) -> float:
    """The largest difference of a side, a keypoint or a rotated corner, in pixels."""
    pairs = [(left.xyxy[one], right.xyxy[two])]
    if left.keypoints is not None and right.keypoints is not None:
        pairs.append((left.keypoints[one][:, :2], right.keypoints[two][:, :2]))
    found = max(float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) for a, b in pairs)
    if left.corners is None or right.corners is None:
        return found
    # The same box may begin at another of its corners.
    turned = (np.roll(right.corners[two], turn, axis=0) for turn in range(4))
    apart = (
        float(np.abs(left.corners[one].astype(np.float64) - corners).max()) for corners in turned
    )
    return max(found, min(apart))

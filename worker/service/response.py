"""Translates typed results to the messages of a response. Decides nothing."""

from collections.abc import Sequence

import numpy as np

from worker.arrays import F32
from worker.backends.base import Backend
from worker.postprocess.mask_encoding import RunLengths
from worker.postprocess.results import Mask, Results
from worker.postprocess.rotated_boxes import corners
from worker.replicas.replica import Replica
from worker.service import convert
from worker.service.identity import Identity
from worker.service.inference import Inference
from worker.service.options import OutputOptions
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2
from yolopool.vocabulary import ReplicaState


def detect_response(
    request: worker_pb2.InferRequest,
    replica: Replica,
    backend: Backend,
    identity: Identity,
    inference: Inference,
    output_options: OutputOptions,
) -> detection_pb2.DetectResponse:
    """The response to a request that `replica` answered with `inference`."""
    results, outcome = inference.results, inference.outcome
    height, width = inference.prepared.image_shape
    message = detection_pb2.DetectResponse(
        detections=detections_to(results, replica.class_names),
        image_width=width,
        image_height=height,
        version=convert.version_of(replica),
        variant=convert.variant_of(replica, backend, identity.compute_class),
        worker=identity.id,
        device=identity.device,
        batch_size=outcome.batch_size,
        timing=convert.timing_to(outcome, inference.prepared),
        request_id=request.request_id,
        task=replica.manifest_pack.manifest.task,
        tiles=inference.tiles,
        image_damage=inference.prepared.damage,
    )
    if results.probabilities is not None:
        classification = classification_to(
            results.probabilities,
            replica.class_names,
            output_options.top_k,
            output_options.all_probabilities,
        )
        message.classification.CopyFrom(classification)
    return message


def pass_facts(inference: Inference, found: ReplicaState) -> worker_pb2.PassFacts:
    """What the request log tells of a request. `found`: where its version was."""
    outcome = inference.outcome
    height, width = inference.prepared.letterboxed.image.shape[:2]
    return worker_pb2.PassFacts(
        batch_id=outcome.batch,
        letterbox_width=width,
        letterbox_height=height // max(1, inference.tiles),
        queue_length=outcome.waiting,
        cold=outcome.is_cold,
        transfer_ms=outcome.transfer_s * 1000,
        memory_retries=outcome.retries,
        found=convert.STATES[found],
    )


def detections_to(results: Results, class_names: Sequence[str]) -> list[detection_pb2.Detection]:
    """One message for each object, in order."""
    rows = zip(
        results.xyxy.tolist(), results.confidence.tolist(), results.class_id.tolist(), strict=True
    )
    messages = [
        detection_pb2.Detection(
            class_id=class_id,
            class_name=class_names[class_id],
            confidence=confidence,
            box=types_pb2.Box(x_min=box[0], y_min=box[1], x_max=box[2], y_max=box[3]),
        )
        for box, confidence, class_id in rows
    ]
    if results.masks is not None:
        for message, mask in zip(messages, results.masks, strict=True):
            message.mask.CopyFrom(_mask_to(mask))
    if results.keypoints is not None:
        for message, points in zip(messages, results.keypoints.tolist(), strict=True):
            message.keypoints.extend(_keypoint_to(point) for point in points)
    if results.rotated is not None:
        boxes = zip(results.rotated.tolist(), corners(results.rotated), strict=True)
        for message, (box, four) in zip(messages, boxes, strict=True):
            message.rotated_box.CopyFrom(_rotated_to(box, four))
    return messages


def classification_to(
    probabilities: F32, class_names: Sequence[str], top_k: int, everything: bool
) -> detection_pb2.Classification:
    """The `top_k` likeliest classes, equal ones by class id; all probabilities on request."""
    order = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return detection_pb2.Classification(
        top=[
            detection_pb2.ClassProbability(
                class_id=index,
                class_name=class_names[index],
                probability=float(probabilities[index]),
            )
            for index in order
        ],
        probabilities=probabilities.tolist() if everything else (),
    )


def _mask_to(mask: Mask) -> detection_pb2.Mask:
    if isinstance(mask, RunLengths):
        runs = detection_pb2.RunLengths(height=mask.height, width=mask.width, counts=mask.counts)
        return detection_pb2.Mask(rle=runs)
    parts = [detection_pb2.Polygon(points=part.reshape(-1).tolist()) for part in mask]
    return detection_pb2.Mask(polygons=detection_pb2.Polygons(parts=parts))


def _keypoint_to(point: list[float]) -> detection_pb2.Keypoint:
    visibility = point[2] if len(point) == 3 else None
    return detection_pb2.Keypoint(x=point[0], y=point[1], visibility=visibility)


def _rotated_to(box: list[float], four: F32) -> detection_pb2.RotatedBox:
    return detection_pb2.RotatedBox(
        center_x=box[0],
        center_y=box[1],
        width=box[2],
        height=box[3],
        rotation=box[4],
        corners=four.reshape(-1).tolist(),
    )

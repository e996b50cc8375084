"""Answers of Detect to the output tensors of a ModelInferResponse. Pure.

n images, k the most objects on any of them. What an image has less of is filled up: classes with
-1, masks with nothing, all else with 0.
"""

import json
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.v1 import detection_pb2

NUM, BOXES, SCORES, CLASSES = "num_detections", "boxes", "scores", "classes"
MASKS, KEYPOINTS, ROTATED, PROBABILITIES = "masks", "keypoints", "rotated_boxes", "probabilities"
_OBJECTS = (NUM, BOXES, SCORES, CLASSES)
_OUTPUTS = {
    "detect": _OBJECTS,
    "segment": (*_OBJECTS, MASKS),
    "pose": (*_OBJECTS, KEYPOINTS),
    "obb": (*_OBJECTS, ROTATED),
    "classify": (SCORES, CLASSES, PROBABILITIES),
}
FP32, INT32, BYTES = "FP32", "INT32", "BYTES"
# Data type and dimensions after that of the batch, -1: as the answer has it.
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    NUM: (INT32, (1,)),
    BOXES: (FP32, (-1, 4)),
    SCORES: (FP32, (-1,)),
    CLASSES: (INT32, (-1,)),
    MASKS: (BYTES, (-1,)),
    KEYPOINTS: (FP32, (-1, -1, -1)),
    ROTATED: (FP32, (-1, 5)),
    PROBABILITIES: (FP32, (-1,)),
}
_NO_CLASS = -1

Answers = Sequence[detection_pb2.DetectResponse]
Row = Sequence[float]


def outputs_of(task: str) -> tuple[str, ...]:
    """Names of the outputs of a task, in their order; none of a task that is not known."""
    return _OUTPUTS.get(task, ())


class Tensor(NamedTuple):
    """Bytes as raw_output_contents has them."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes


def infer_response(
    request: kserve.ModelInferRequest, answers: Answers, outputs: tuple[str, ...] | None
) -> kserve.ModelInferResponse:
    """The response of at least one answer, with these outputs (None: all of the task)."""
    first = answers[0]
    response = kserve.ModelInferResponse(
        model_name=first.version.model,
        model_version=str(first.version.version),
        id=request.id,
    )
    response.parameters["request_id"].string_param = first.request_id
    task = first.task or "detect"
    for name in outputs_of(task) if outputs is None else outputs:
        tensor = _MAKERS[name](answers)
        response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.data)
    return response


def _num_detections(answers: Answers) -> Tensor:
    counts = [len(answer.detections) for answer in answers]
    return Tensor(INT32, (len(answers), 1), packed("i", counts))


def _boxes(answers: Answers) -> Tensor:
    return _of_objects(answers, _corners, (4,))


def _corners(found: detection_pb2.Detection) -> Row:
    box = found.box
    return box.x_min, box.y_min, box.x_max, box.y_max


def _rotated(answers: Answers) -> Tensor:
    return _of_objects(answers, _centre_and_turn, (5,))


def _centre_and_turn(found: detection_pb2.Detection) -> Row:
    box = found.rotated_box
    return box.center_x, box.center_y, box.width, box.height, box.rotation


def _keypoints(answers: Answers) -> Tensor:
    """[n, k, points, 3]: x, y, visibility; 2 of a model that does not tell the visibility."""
    everything = [found.keypoints for answer in answers for found in answer.detections]
    points = max(map(len, everything), default=0)
    seen = any(point.HasField("visibility") for one in everything for point in one)

    def row(found: detection_pb2.Detection) -> Row:
        if seen:
            return [v for p in found.keypoints for v in (p.x, p.y, p.visibility)]
        return [v for p in found.keypoints for v in (p.x, p.y)]

    return _of_objects(answers, row, (points, 3 if seen else 2))


def _scores(answers: Answers) -> Tensor:
    """Of objects; of a classification, of its likeliest classes."""
    rows = [
        [found.confidence for found in answer.detections]
        or [top.probability for top in answer.classification.top]
        for answer in answers
    ]
    return _ranked(FP32, "f", 0.0, rows)


def _classes(answers: Answers) -> Tensor:
    rows = [
        [found.class_id for found in answer.detections]
        or [top.class_id for top in answer.classification.top]
        for answer in answers
    ]
    return _ranked(INT32, "i", _NO_CLASS, rows)


def _ranked(datatype: str, code: str, filler: float, rows: Sequence[list[Any]]) -> Tensor:
    most = max(map(len, rows))
    values = [value for row in rows for value in (*row, *[filler] * (most - len(row)))]
    return Tensor(datatype, (len(rows), most), packed(code, values))


def _probabilities(answers: Answers) -> Tensor:
    rows = [answer.classification.probabilities for answer in answers]
    values = [value for row in rows for value in row]
    return Tensor(FP32, (len(answers), len(rows[0])), packed("f", values))


def _masks(answers: Answers) -> Tensor:
    """Each as COCO has run lengths, in JSON: {"size": [height, width], "counts": "..."}."""
    most = _most(answers)
    data = bytearray()
    for answer in answers:
        for found in answer.detections:
            rle = found.mask.rle
            counts = {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}
            text = json.dumps(counts).encode()
            data += len(text).to_bytes(4, "little") + text
        data += bytes(4 * (most - len(answer.detections)))
    return Tensor(BYTES, (len(answers), most), bytes(data))


def _most(answers: Answers) -> int:
    return max(len(answer.detections) for answer in answers)


def _of_objects(
    answers: Answers, row: Callable[[detection_pb2.Detection], Row], inner: tuple[int, ...]
) -> Tensor:
    most = _most(answers)
    size = 1
    for side in inner:
        size *= side
    values: list[float] = []
    for answer in answers:
        for found in answer.detections:
            given = row(found)
            values += given
            values += [0.0] * (size - len(given))
        values += [0.0] * (size * (most - len(answer.detections)))
    return Tensor(FP32, (len(answers), most, *inner), packed("f", values))


def packed(code: str, values: Iterable[float]) -> bytes:
    """Little-endian; `code` is that of the module array. Raises OverflowError."""
    packed = array(code, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


_MAKERS: dict[str, Callable[[Answers], Tensor]] = {
    NUM: _num_detections,
    BOXES: _boxes,
    SCORES: _scores,
    CLASSES: _classes,
    MASKS: _masks,
    KEYPOINTS: _keypoints,
    ROTATED: _rotated,
    PROBABILITIES: _probabilities,
}

"""Answers become tensors that any number of images fit, in the order of the batch."""

import json
from typing import Any

import numpy as np

from control_plane.gateway.kserve.result_tensors import infer_response, outputs_of
from yolopool.kserve.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from yolopool.v1 import detection_pb2, types_pb2

KINDS = {"FP32": "<f4", "INT32": "<i4"}


def answer(*found: detection_pb2.Detection, **more: Any) -> detection_pb2.DetectResponse:
    key = types_pb2.VersionKey(model="team/shapes", version=3)
    return detection_pb2.DetectResponse(version=key, detections=found, request_id="r", **more)


def found(class_id: int, confidence: float, *box: float, **more: Any) -> detection_pb2.Detection:
    corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
    return detection_pb2.Detection(
        class_id=class_id, confidence=confidence, box=types_pb2.Box(**corners), **more
    )


def arrays(response: ModelInferResponse) -> dict[str, Any]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {
        one.name: np.frombuffer(data, KINDS[one.datatype]).reshape(one.shape).tolist()
        for one, data in pairs
        if one.datatype in KINDS
    }


def texts(data: bytes) -> list[bytes]:
    parts = []
    while data:
        size = int.from_bytes(data[:4], "little")
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    return parts


def test_images_with_more_and_fewer_objects() -> None:
    answers = [
        answer(task="detect"),
        answer(found(1, 0.5, 1, 2, 3, 4), found(7, 0.25, 5, 6, 7, 8), task="detect"),
        answer(found(0, 1, 9, 9, 9, 9), task="detect"),
    ]
    response = infer_response(ModelInferRequest(id="mine"), answers, None)
    assert (response.model_name, response.model_version) == ("team/shapes", "3")
    assert (response.id, response.parameters["request_id"].string_param) == ("mine", "r")
    assert [one.name for one in response.outputs] == list(outputs_of("detect"))
    nothing = [0.0] * 4
    assert arrays(response) == {
        "num_detections": [[0], [2], [1]],
        "boxes": [[nothing, nothing], [[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 9, 9, 9], nothing]],
        "scores": [[0, 0], [0.5, 0.25], [1, 0]],
        "classes": [[-1, -1], [1, 7], [0, -1]],
    }


def test_no_objects_at_all() -> None:
    found = infer_response(ModelInferRequest(), [answer(task="detect")] * 2, None)
    assert [list(one.shape) for one in found.outputs] == [[2, 1], [2, 0, 4], [2, 0], [2, 0]]
    assert list(found.raw_output_contents) == [bytes(8), b"", b"", b""]


def test_only_the_outputs_that_are_asked_for_in_their_order() -> None:
    one = answer(found(1, 0.5, 1, 2, 3, 4), task="detect")
    response = infer_response(ModelInferRequest(), [one], ("scores", "num_detections"))
    assert arrays(response) == {"scores": [[0.5]], "num_detections": [[1]]}


def test_masks_are_cocos_run_lengths() -> None:
    rle = detection_pb2.RunLengths(height=4, width=6, counts=b"52203")
    one = found(1, 0.5, 1, 2, 3, 4, mask=detection_pb2.Mask(rle=rle))
    answers = [answer(one, task="segment"), answer(one, one, task="segment")]
    response = infer_response(ModelInferRequest(), answers, ("masks",))
    assert list(response.outputs[0].shape) == [2, 2]
    first, empty, *others = texts(response.raw_output_contents[0])
    assert json.loads(first) == {"size": [4, 6], "counts": "52203"}
    assert (empty, others) == (b"", [first, first])


def test_keypoints_with_and_without_visibility() -> None:
    point = detection_pb2.Keypoint
    seen = found(0, 1, 0, 0, 1, 1, keypoints=[point(x=1, y=2, visibility=0.5), point(x=3, y=4)])
    blind = found(0, 1, 0, 0, 1, 1, keypoints=[point(x=1, y=2), point(x=3, y=4)])
    answers = [answer(task="pose"), answer(seen, task="pose")]
    response = infer_response(ModelInferRequest(), answers, ("keypoints",))
    assert arrays(response)["keypoints"] == [[[[0] * 3] * 2], [[[1, 2, 0.5], [3, 4, 0]]]]
    response = infer_response(ModelInferRequest(), [answer(blind, task="pose")], ("keypoints",))
    assert arrays(response)["keypoints"] == [[[[1, 2], [3, 4]]]]
    nobody = infer_response(ModelInferRequest(), [answer(task="pose")], ("keypoints",))
    assert list(nobody.outputs[0].shape) == [1, 0, 0, 2]


def test_rotated_boxes() -> None:
    box = detection_pb2.RotatedBox(center_x=1, center_y=2, width=3, height=4, rotation=0.5)
    one = found(0, 1, 0, 0, 1, 1, rotated_box=box)
    response = infer_response(ModelInferRequest(), [answer(one, task="obb")], None)
    assert arrays(response)["rotated_boxes"] == [[[1, 2, 3, 4, 0.5]]]


def test_a_classification() -> None:
    top = [
        detection_pb2.ClassProbability(class_id=2, probability=0.75),
        detection_pb2.ClassProbability(class_id=0, probability=0.25),
    ]
    one = answer(
        task="classify",
        classification=detection_pb2.Classification(top=top, probabilities=[0.25, 0, 0.75]),
    )
    response = infer_response(ModelInferRequest(), [one, one], None)
    assert arrays(response) == {
        "scores": [[0.75, 0.25]] * 2,
        "classes": [[2, 0]] * 2,
        "probabilities": [[0.25, 0, 0.75]] * 2,
    }

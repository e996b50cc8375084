import json

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from control_plane.gateway import proto_json
from yolopool.v1 import detection_pb2, model_pb2, types_pb2


def by_library(message: Message) -> object:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def test_equals_the_librarys() -> None:
    polygon = detection_pb2.Polygons(parts=[detection_pb2.Polygon(points=[0.1, 2, 1e-9])])
    answer = detection_pb2.DetectResponse(
        detections=[
            detection_pb2.Detection(
                class_name='é "',
                confidence=0.9,
                box=types_pb2.Box(x_min=0.1, y_max=639.99),
                mask=detection_pb2.Mask(polygons=polygon),
                keypoints=[detection_pb2.Keypoint(x=0.1, visibility=0), detection_pb2.Keypoint()],
                rotated_box=detection_pb2.RotatedBox(corners=[1.5, 2.25]),
            ),
            detection_pb2.Detection(),
        ],
        classification=detection_pb2.Classification(probabilities=[0.1, 0.2]),
        drift=types_pb2.Drift(map50=0),
    )
    assert json.loads(proto_json.dumps(answer)) == by_library(answer)


def test_enums_maps_and_bytes() -> None:
    placement = types_pb2.Placement(
        priority=types_pb2.PRIORITY_BULK, labels={"a": "b"}, max_replicas=3
    )
    assert json.loads(proto_json.dumps(placement)) == by_library(placement)
    chunk = model_pb2.UploadArtifactRequest(chunk=b"\xff\x00")
    assert json.loads(proto_json.dumps(chunk)) == by_library(chunk)
    # What COCO's tools take as text is text.
    lengths = detection_pb2.RunLengths(height=2, width=2, counts=b"04")
    assert json.loads(proto_json.dumps(lengths)) == {"height": 2, "width": 2, "counts": "04"}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_is_the_same_again(value: float) -> None:
    told = json.loads(proto_json.dumps(detection_pb2.Timing(total_ms=value)))["total_ms"]
    assert np.float32(told) == np.float32(value)
    # No longer than numpy's own.
    assert len(repr(told)) <= len(repr(float(str(np.float32(value)))))

import pytest

from control_plane.gateway.rest import options
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2


def test_every_option_of_the_proto_can_be_said() -> None:
    proto = set(detection_pb2.DetectOptions.DESCRIPTOR.fields_by_name)
    assert set(options.DetectParameters.model_fields) == proto | {
        "model",
        "priority",
        "sticky_key",
        "timeout",
    }


def test_a_sticky_key_is_of_the_request() -> None:
    given = options.request_of(options.of_pairs([("model", "a:b"), ("sticky_key", "camera-7")]))
    assert (given.model, given.sticky_key) == ("a:b", "camera-7")
    with pytest.raises(InvalidOption):
        options.of_pairs([("model", "a:b"), ("sticky_key", "x" * 201)])


def test_what_is_left_out_is_not_set() -> None:
    request = options.request_of(options.of_pairs([("model", "a")]))
    assert request == detection_pb2.DetectRequest(model="a")
    request = options.request_of(options.of_json({"model": "a", "image": "", "iou": None}))
    assert request == detection_pb2.DetectRequest(model="a", options=detection_pb2.DetectOptions())
    # A threshold of nought is one that was given.
    given = options.request_of(options.of_pairs([("model", "a"), ("confidence", "0")]))
    assert given.options.HasField("confidence")


def test_text_and_json_are_the_same_request() -> None:
    text = options.of_pairs(
        [
            ("model", "a"),
            ("classes", "1,2"),
            ("classes", "3"),
            ("class_confidences", "0:0.5,1:0.25"),
            ("tiling", "0,0.5"),
            ("mask_format", "MASK_FORMAT_RLE"),
        ]
    )
    members = options.of_json(
        {
            "model": "a",
            "image": "",
            "classes": [1, 2, 3],
            "class_confidences": [
                {"class_id": 0, "confidence": 0.5},
                {"class_id": 1, "confidence": 0.25},
            ],
            "tiling": {"overlap": 0.5},
            "mask_format": "rle",
        }
    )
    assert options.request_of(text) == options.request_of(members)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("confidence", "1.5", "less than or equal to 1"),
        ("iou", "nan", "iou"),
        ("max_detections", "0", "greater than or equal to 1"),
        ("classes", "-1", "classes.0"),
        ("classes", str(2**32), "classes.0"),
        ("class_confidences", "1", "class_confidences.0.confidence"),
        ("region_of_interest", "1,2,3,inf", "y_max"),
        ("region_of_interest", "1,2,3", "write x_min,y_min,x_max,y_max"),
        ("tiling", "a", "tile_size"),
        ("priority", "urgent", "'interactive', 'normal' or 'bulk'"),
        ("agnostic_nms", "perhaps", "agnostic_nms"),
        ("timeout", "-1", "timeout"),
        ("timeout", "inf", "timeout"),
        ("conf", "0.5", "known are model, confidence"),
        ("model", "b", "given twice"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        options.of_pairs([("model", "a"), (name, value)])
    assert says in raised.value.message

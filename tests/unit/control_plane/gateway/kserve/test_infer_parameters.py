"""Parameters are options of Detect by their names, and nothing is ignored."""

from typing import Any

import pytest

from control_plane.gateway.kserve.infer_parameters import parameters_of, sticky_key_of
from yolopool.errors import InvalidOption
from yolopool.kserve.grpc_service_pb2 import InferParameter
from yolopool.v1 import types_pb2


def of(**given: Any) -> Any:
    fields = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return parameters_of(
        {name: InferParameter(**{fields[type(value)]: value}) for name, value in given.items()}
    )


def test_options_by_their_names_and_by_those_of_others() -> None:
    found = of(confidence=0.5, iou=1, max_det=7, top_k=3, image_size=320, agnostic_nms=True)
    options = found.options
    assert (options.confidence, options.iou, options.max_detections) == (0.5, 1.0, 7)
    assert (options.top_k, options.image_size, options.agnostic_nms) == (3, 320, True)
    assert not of().options.HasField("confidence")
    assert of(conf=0.0).options.HasField("confidence")
    assert of(accept_damaged=True).options.accept_damaged


def test_classes_are_one_or_a_text_of_several() -> None:
    assert list(of(classes=3).options.classes) == [3]
    assert list(of(classes="0, 2,7").options.classes) == [0, 2, 7]


@pytest.mark.parametrize(
    ("level", "priority"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (2**64 - 1, 3)]
)
def test_a_lower_priority_is_more_urgent(level: int, priority: int) -> None:
    assert types_pb2.PRIORITY_INTERACTIVE == 1
    assert types_pb2.PRIORITY_BULK == 3
    given = {"priority": InferParameter(uint64_param=level)}
    assert parameters_of(given).priority == priority


def test_a_sticky_key_is_a_text_and_no_option() -> None:
    given = {"sticky_key": InferParameter(string_param="camera-7")}
    assert parameters_of(given) == of()
    assert sticky_key_of(given) == "camera-7"
    assert sticky_key_of({}) == ""
    for wrong in (7, "x" * 201):
        with pytest.raises(InvalidOption):
            of(sticky_key=wrong)


def test_timeout_is_in_microseconds_and_0_is_none() -> None:
    assert of(timeout=2_500_000).timeout_s == 2.5
    assert of(timeout=0).timeout_s is None
    assert of(timeout=2**63 - 1).timeout_s == 24 * 3600


def test_what_clients_ask_of_the_protocol_itself_has_no_effect() -> None:
    assert of(triton_enable_empty_final_response=True) == of()


@pytest.mark.parametrize(
    "given",
    [
        {"confidense": 0.5},
        {"confidence": 1.1},
        {"confidence": float("nan")},
        {"confidence": "0.5"},
        {"confidence": True},
        {"iou": -0.1},
        {"max_detections": 1.5},
        {"max_detections": -1},
        {"max_detections": 2**40},
        {"classes": "cat"},
        {"classes": ""},
        {"classes": "1,,2"},
        {"classes": "9" * 20},
        {"classes": "1," * 40_000 + "1"},
        {"agnostic_nms": 1},
        {"layout": "NCWH"},
        {"channel_order": 3},
        {"priority": -1},
        {"timeout": -5},
        {"timeout": 0.5},
        {"sequence_id": 7},
        {"conf": 0.5, "confidence": 0.5},
    ],
)
def test_a_wrong_one_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        of(**given)


def test_one_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidOption):
        parameters_of({"confidence": InferParameter()})

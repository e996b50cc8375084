"""Bodies of the HTTP door, to messages and back."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.gateway.kserve import json_tensors
from control_plane.gateway.kserve.json_tensors import MAX_JSON_BYTES, infer_body, infer_request
from yolopool.errors import InvalidArgument, InvalidOption, InvalidTensor
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.kserve import model_config_pb2


def body(document: Any, *parts: bytes) -> tuple[bytes, int | None]:
    head = json.dumps(document).encode()
    return b"".join([head, *parts]), len(head) if parts else None


def ask(document: Any, *parts: bytes) -> Any:
    content, size = body(document, *parts)
    return infer_request("team/shapes", "3", content, size)


def test_a_tensor_in_json() -> None:
    image = {
        "name": "images",
        "shape": [1, 1, 1, 3],
        "datatype": "UINT8",
        "data": [[[[0, 255, 7]]]],
    }
    document = {
        "id": "mine",
        "parameters": {"confidence": 0.5, "priority": 1, "agnostic_nms": True, "classes": "1"},
        "inputs": [image],
        "outputs": [{"name": "boxes"}, {"name": "scores", "parameters": {"binary_data": True}}],
    }
    request, binary = ask(document)
    assert (request.model_name, request.model_version, request.id) == ("team/shapes", "3", "mine")
    assert list(request.raw_input_contents) == [bytes([0, 255, 7])]
    assert list(request.inputs[0].shape) == [1, 1, 1, 3]
    assert request.parameters["confidence"].double_param == 0.5
    assert request.parameters["priority"].uint64_param == 1
    assert request.parameters["agnostic_nms"].bool_param
    assert request.parameters["classes"].string_param == "1"
    assert [one.name for one in request.outputs] == ["boxes", "scores"]
    assert not request.outputs[1].parameters
    assert binary == ({"scores": True}, False)


def test_fp32_and_images_in_json() -> None:
    request, _ = ask(
        {"inputs": [{"name": "images", "shape": [3], "datatype": "FP32", "data": [0, 0.5, 1]}]}
    )
    assert np.frombuffer(request.raw_input_contents[0], "<f4").tolist() == [0, 0.5, 1]
    images = [base64.b64encode(one).decode() for one in (b"one", b"", b"three")]
    for data in (images, [[one] for one in images]):
        request, _ = ask(
            {"inputs": [{"name": "image", "shape": [3], "datatype": "BYTES", "data": data}]}
        )
        raw = b"\3\0\0\0one" + bytes(4) + b"\5\0\0\0three"
        assert list(request.raw_input_contents) == [raw]


def test_the_bytes_of_tensors_follow_the_json() -> None:
    def tensor(size: int) -> dict[str, Any]:
        said = {"binary_data_size": size}
        return {"name": "a", "shape": [1], "datatype": "BYTES", "parameters": said}

    document = {
        "inputs": [tensor(3), tensor(0), tensor(4)],
        "parameters": {"binary_data_output": True},
    }
    request, binary = ask(document, b"abcdefg")
    assert list(request.raw_input_contents) == [b"abc", b"", b"defg"]
    assert not request.inputs[0].parameters
    assert not request.parameters
    assert binary == ({}, True)


def test_a_body_that_is_one_image() -> None:
    request, binary = infer_request("shapes", "", b"jpeg", 0)
    assert request.inputs[0].contents.bytes_contents == [b"jpeg"]
    assert binary == ({}, True)


def tensor(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "shape": [1], "datatype": "UINT8", **fields}]}


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {"id": 7},
        {"parameters": []},
        {"parameters": {"a": None}},
        {"parameters": {"a": [1]}},
        {"parameters": {"a": 2**64}},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [{}] * 17},
        {"outputs": [{}] * 17},
        {"outputs": [{"name": 1}]},
        tensor(),
        tensor(data=7),
        tensor(data=[0.5]),
        tensor(data=[256]),
        tensor(data=[-1]),
        tensor(data=["1"]),
        tensor(data=[None]),
        tensor(data=[True]),
        tensor(data=[1, [2]]),
        tensor(data=[[1], 2]),
        tensor(data=[[[1]], [2]]),
        tensor(data=[[[]], {}]),
        tensor(data=[10**40]),
        tensor(data=[{}]),
        tensor(datatype="FP32", data=["nan"]),
        tensor(datatype="FP32", data=["0.5"]),
        tensor(datatype="FP32", data=[True]),
        tensor(datatype="FP32", data=[None]),
        tensor(datatype="FP32", data=[10**400]),
        tensor(datatype="BYTES", data=["no base64!"]),
        tensor(datatype="BYTES", data=["ü"]),
        tensor(datatype="BYTES", data=[7]),
        tensor(datatype="BYTES", data=[[["YQ=="]]]),
        tensor(datatype=8, data=[1]),
        tensor(data=[1], shape=["1"]),
        tensor(data=[1], shape=[1.0]),
        tensor(data=[1], shape=[True]),
        tensor(data=[1], shape=[2**63]),
        tensor(data=[1], shape=7),
        tensor(data=[1], shape=[1] * 17),
        tensor(data=[1], parameters=7),
        tensor(parameters={"binary_data_size": 1}),
        tensor(parameters={"binary_data_size": -1}),
        tensor(parameters={"binary_data_size": "1"}),
        tensor(parameters={"binary_data_size": False}),
    ],
)
def test_what_is_wrong_is_said(document: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ask(document)
    assert len(raised.value.message) > 15


def test_a_long_text_among_values_takes_no_room_for_each() -> None:
    """Room for the longest of them for each of them would be a terabyte."""
    texts = ["a" * 1_000_000, *["b"] * 250_000]
    for datatype in ("UINT8", "FP32"):
        with pytest.raises(InvalidTensor, match="give numbers"):
            ask(tensor(datatype=datatype, data=texts))


def test_values_may_be_nested_in_any_way() -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]], [[1], [2, 3, 4]], [[[[1]], [[2]]], [[[3, 4]]]]):
        request, _ = ask(tensor(data=data))
        assert list(request.raw_input_contents) == [b"\1\2\3\4"]
    request, _ = ask(tensor(data=[[[]]]))
    assert list(request.raw_input_contents) == [b""]
    # Refused as infinity where its range is looked at.
    request, _ = ask(tensor(datatype="FP32", data=[1e39]))
    assert np.frombuffer(request.raw_input_contents[0], "<f4").tolist() == [np.inf]


def test_sizes_that_do_not_fit_the_body() -> None:
    content, _ = body({})
    for size in (len(content) + 1, 2**40):
        with pytest.raises(InvalidArgument):
            infer_request("shapes", "", content, size)
    with pytest.raises(InvalidArgument, match="belong to no input"):
        ask({}, b"left over")


def test_no_json_deep_json_and_long_json_are_refused() -> None:
    for content in (b"{", b"\xff", b"[" * 100_000, b'{"a":' * 50_000):
        with pytest.raises(InvalidArgument):
            infer_request("shapes", "", content, None)
    with pytest.raises(InvalidArgument, match="Inference-Header-Content-Length"):
        infer_request("shapes", "", b" " * (MAX_JSON_BYTES + 1), None)


HALVES = b'{"id": "\\ud800", "parameters": {"\\ud801": "\\udfff"}}'


def test_half_a_surrogate_pair_is_text_all_the_same() -> None:
    request, _ = infer_request(
        "shapes", "", b'{"id": "\\ud800", "parameters": {"a": "\\udfff"}}', None
    )
    assert request.id == "?"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = {
    "name": JSON,
    "shape": JSON | st.lists(st.integers()),
    "datatype": st.sampled_from(["UINT8", "FP32", "BYTES", "INT32", "FP64"]),
    "data": JSON | st.lists(JSON, max_size=3),
    "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": JSON}) | JSON,
}
TENSORS = JSON | st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=2)
KNOWN = st.fixed_dictionaries(
    {},
    optional={"id": JSON, "parameters": JSON, "inputs": TENSORS, "outputs": TENSORS},
)


@given(KNOWN | JSON, st.binary(max_size=9))
def test_whatever_is_sent_is_taken_or_refused(document: Any, rest: bytes) -> None:
    try:
        request, _ = ask(document, rest)
    except InvalidArgument:
        return
    assert len(request.raw_input_contents) == len(request.inputs)


def answer() -> kserve.ModelInferResponse:
    response = kserve.ModelInferResponse(model_name="shapes", model_version="3")
    response.parameters["request_id"].string_param = "r"
    for name, datatype, shape, data in (
        ("boxes", "FP32", [1, 1, 4], np.array([1, 2, 3, 4.5], "<f4").tobytes()),
        ("classes", "INT32", [1, 1], b"\7\0\0\0"),
        ("masks", "BYTES", [1, 2], b"\2\0\0\0{}" + bytes(4)),
    ):
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(data)
    return response


def test_an_answer_in_json() -> None:
    content, size = infer_body(answer(), ({}, False))
    assert size is None
    assert json.loads(content) == {
        "model_name": "shapes",
        "model_version": "3",
        "parameters": {"request_id": "r"},
        "outputs": [
            {"name": "boxes", "datatype": "FP32", "shape": [1, 1, 4], "data": [1, 2, 3, 4.5]},
            {"name": "classes", "datatype": "INT32", "shape": [1, 1], "data": [7]},
            {"name": "masks", "datatype": "BYTES", "shape": [1, 2], "data": ["{}", ""]},
        ],
    }


def test_an_answer_with_bytes() -> None:
    content, size = infer_body(answer(), ({"classes": False}, True))
    assert size is not None
    boxes, classes, masks = json.loads(content[:size])["outputs"]
    assert boxes["parameters"] == {"binary_data_size": 16}
    assert classes["data"] == [7]
    assert masks["parameters"] == {"binary_data_size": 10}
    assert content[size:] == b"".join(answer().raw_output_contents[::2])


def test_a_large_answer_is_sent_as_bytes_or_not_at_all() -> None:
    response = kserve.ModelInferResponse()
    for name in ("boxes", "scores"):
        response.outputs.add(name=name, datatype="FP32", shape=[300_000])
        response.raw_output_contents.append(bytes(4 * 300_000))
    with pytest.raises(InvalidOption, match="binary_data_output"):
        infer_body(response, ({}, False))
    content, size = infer_body(response, ({"scores": True}, False))
    assert size is not None
    assert len(json.loads(content[:size])["outputs"][0]["data"]) == 300_000
    assert len(infer_body(response, ({}, True))[0]) > 2_400_000


def test_messages_as_the_protocol_has_them_in_json() -> None:
    config = model_config_pb2.ModelConfig(name="shapes", max_batch_size=8)
    config.input.add(name="image", data_type=model_config_pb2.TYPE_STRING, dims=[1])
    config.parameters["task"].string_value = "detect"
    config.version_policy.specific.versions.append(3)
    found = json_tensors.plain(config)
    assert found["input"][0]["data_type"] == "TYPE_STRING"
    assert found["input"][0]["dims"] == [1]
    assert found["parameters"] == {"task": {"string_value": "detect"}}
    assert found["version_policy"] == {"specific": {"versions": [3]}}
    assert "dynamic_batching" not in found
    assert json.dumps(json_tensors.plain(kserve.ModelStatistics(inference_count=2**40)))

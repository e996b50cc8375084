"""One Detect request an image, with the options that the outputs and the task need."""

from typing import Any

import pytest

from control_plane.gateway.kserve.infer_request import images_in, reference
from yolopool.errors import InvalidModelReference, InvalidOption
from yolopool.kserve.grpc_service_pb2 import ModelInferRequest
from yolopool.v1 import detection_pb2

RLE, NONE = detection_pb2.MASK_FORMAT_RLE, detection_pb2.MASK_FORMAT_NONE


def request(images: int = 1, *outputs: str, **more: Any) -> ModelInferRequest:
    made = ModelInferRequest(model_name="team/shapes", **more)
    tensor = made.inputs.add(name="image", datatype="BYTES", shape=[images])
    tensor.contents.bytes_contents.extend(bytes([i]) for i in range(images))
    for name in outputs:
        made.outputs.add(name=name)
    return made


def test_references() -> None:
    assert reference("team/shapes", "") == "team/shapes"
    assert reference("team/shapes", "3") == "team/shapes@3"
    assert reference("team/shapes", "003") == "team/shapes@3"
    for version in ("latest", "-1", "1.0", "0", "\u0661", "9" * 5000, "0" * 5000 + "1"):
        with pytest.raises(InvalidModelReference):
            reference("shapes", version)


def test_a_request_an_image_with_the_same_options() -> None:
    made = request(3, model_version="2")
    made.parameters["confidence"].double_param = 0.5
    made.parameters["priority"].uint64_param = 1
    made.parameters["timeout"].int64_param = 1000
    found = images_in(made, "", "detect")
    assert [one.encoded for one in found.requests] == [b"\0", b"\1", b"\2"]
    assert {one.model for one in found.requests} == {"team/shapes@2"}
    assert {(one.options.confidence, one.priority) for one in found.requests} == {(0.5, 1)}
    assert (found.timeout_s, found.outputs) == (0.001, None)
    assert not images_in(request(), "", "detect").requests[0].HasField("options")
    meant = images_in(request(2), "team/shapes@7", "detect")
    assert {one.model for one in meant.requests} == {"team/shapes@7"}


def test_a_batch_has_one_version_and_a_single_image_goes_by_its_alias() -> None:
    def models(images: int, version: str) -> set[tuple[str, str]]:
        made = request(images)
        made.model_name = "team/shapes:stable"
        made.parameters["sticky_key"].string_param = "camera-7"
        found = images_in(made, version, "detect").requests
        return {(one.model, one.sticky_key) for one in found}

    assert models(1, "team/shapes@7") == {("team/shapes:stable", "camera-7")}
    assert models(2, "team/shapes@7") == {("team/shapes@7", "camera-7")}
    assert models(2, "") == {("team/shapes:stable", "camera-7")}  # a family


def test_masks_are_made_where_they_are_asked_for() -> None:
    assert images_in(request(), "", "segment").requests[0].options.mask_format == RLE
    assert images_in(request(1, "masks"), "", "segment").requests[0].options.mask_format == RLE
    assert images_in(request(1, "boxes"), "", "segment").requests[0].options.mask_format == NONE


def test_probabilities_are_made_where_they_are_asked_for() -> None:
    assert images_in(request(), "", "classify").requests[0].options.all_probabilities
    one = images_in(request(1, "scores"), "", "classify").requests[0]
    assert not one.options.all_probabilities


def test_outputs_are_those_of_the_task_once_each() -> None:
    found = images_in(request(1, "scores", "boxes"), "", "detect")
    assert found.outputs == ("scores", "boxes")
    for task, outputs in (
        ("detect", ["masks"]),
        ("classify", ["boxes"]),
        ("", ["output0"]),
        ("detect", ["boxes", "boxes"]),
        ("detect", ["boxes"] * 17),
    ):
        with pytest.raises(InvalidOption):
            images_in(request(1, *outputs), "", task)


@pytest.mark.parametrize("name", ["classification", "shared_memory_region", "binary"])
def test_parameters_of_outputs_are_refused(name: str) -> None:
    made = request(1, "boxes")
    made.outputs[0].parameters[name].int64_param = 3
    with pytest.raises(InvalidOption):
        images_in(made, "", "detect")


def test_the_callers_id_is_each_images() -> None:
    assert images_in(request(), "", "detect", "mine").requests[0].request_id == "mine"
    ids = [one.request_id for one in images_in(request(2), "", "detect", "mine").requests]
    assert ids == ["mine/0", "mine/1"]
    long = "x" * 128
    assert {one.request_id for one in images_in(request(2), "", "detect", long).requests} == {long}

"""Messages as JSON: what is taken, what is refused by which name, and what is answered."""

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from control_plane.gateway.rest.comments import comment_of
from control_plane.gateway.rest.schemas import as_json, as_line, parsed, schema_of
from yolopool.errors import InvalidOption
from yolopool.v1 import bench_pb2, events_pb2, fleet_pb2, model_pb2, types_pb2

REGISTER = schema_of(model_pb2.RegisterModelRequest.DESCRIPTOR)


def taken(body: str) -> model_pb2.RegisterModelRequest:
    given = REGISTER.model_validate(json.loads(body)).model_dump(exclude_unset=True)
    return parsed(given, model_pb2.RegisterModelRequest())


def test_a_body_is_the_message_by_the_protos_names() -> None:
    message = taken(
        '{"name": "team/a", "wait": true, "class_names": ["b", ""], "settings": {"confidence": 0,'
        '"image_sizes": [320, 640], "shape_policy": "SHAPE_POLICY_SQUARE"},'
        '"placement": {"labels": {"gpu": "l4"}}}'
    )
    assert message.name == "team/a"
    assert message.wait
    assert message.settings.HasField("confidence")  # zero is a value
    assert not message.settings.HasField("iou")
    assert list(message.settings.image_sizes) == [320, 640]
    assert message.placement.labels["gpu"] == "l4"
    assert taken("{}") == model_pb2.RegisterModelRequest()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"nam": "a"}', "nam"),
        ('{"name": 5}', "name"),
        ('{"name": null}', "name"),
        ('{"wait": 1}', "wait"),
        ('{"wait": "true"}', "wait"),
        ('{"settings": {"imagesize": 1}}', "settings.imagesize"),
        ('{"settings": {"imageSize": 1}}', "settings.imageSize"),
        ('{"settings": {"image_size": "640"}}', "settings.image_size"),
        ('{"settings": {"image_size": 640.5}}', "settings.image_size"),
        ('{"settings": {"image_size": -1}}', "settings.image_size"),
        ('{"settings": {"image_size": 4294967296}}', "settings.image_size"),
        ('{"settings": {"image_sizes": [1, "2"]}}', "settings.image_sizes.1"),
        ('{"settings": {"image_sizes": 1}}', "settings.image_sizes"),
        ('{"settings": {"confidence": NaN}}', "settings.confidence"),
        ('{"settings": {"confidence": "NaN"}}', "settings.confidence"),
        ('{"settings": {"confidence": -Infinity}}', "settings.confidence"),
        ('{"settings": {"confidence": 1e999}}', "settings.confidence"),
        ('{"settings": {"shape_policy": "square"}}', "settings.shape_policy"),
        ('{"settings": {"shape_policy": 2}}', "settings.shape_policy"),
        ('{"placement": {"labels": {"a": 1}}}', "placement.labels.a"),
        ('{"placement": {"labels": ["a"]}}', "placement.labels"),
        ("[]", ""),
        ("5", ""),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(body: str, named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        taken(body)
    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [named]


@pytest.mark.parametrize(
    "body",
    ['{"settings": {"confidence": 1e39}}', '{"name": "\\ud800"}', '{"class_names": ["\\udfff"]}'],
)
def test_what_no_message_holds_is_refused_too(body: str) -> None:
    with pytest.raises(InvalidOption, match="confidence|name"):
        taken(body)


def test_bytes_are_base64() -> None:
    sweep = schema_of(bench_pb2.Sweep.DESCRIPTOR)
    given = sweep.model_validate({"image": "/9g="}).model_dump(exclude_unset=True)
    assert parsed(given, bench_pb2.Sweep()).image == b"\xff\xd8"
    for wrong in ("/9g", "ä", "####"):
        with pytest.raises(ValidationError):
            sweep.model_validate({"image": wrong})


def test_an_answer_has_zeros_and_numbers_and_no_unset_part() -> None:
    version = model_pb2.ModelVersion(weights_bytes=2**40, gflops=0.7)
    version.served["cpu"].unchecked = True
    version.builds.add(pack="p")
    answer = as_json(version)
    assert answer["weights_bytes"] == 2**40
    assert answer["gflops"] == 0.7
    assert answer["parameters"] == 0
    assert answer["warnings"] == []
    assert answer["batching"] == {}
    assert answer["state"] == "VERSION_STATE_UNSPECIFIED"
    assert answer["served"]["cpu"] == {"pack": "", "checks": [], "unchecked": True}
    assert answer["builds"][0]["pack"] == "p"
    assert answer.keys().isdisjoint({"version", "residency"})
    assert as_json(types_pb2.VersionSettings(iou=0))["iou"] == 0.0
    assert "confidence" not in as_json(types_pb2.VersionSettings())


def test_an_answer_is_json_whatever_it_holds() -> None:
    odd = fleet_pb2.Worker(state=99, lease_left_s=math.nan)  # type: ignore[arg-type]
    odd.load.estimated_wait_ms = math.inf
    told = json.loads(as_line(odd))
    assert told["state"] == 99
    assert told["lease_left_s"] is told["load"]["estimated_wait_ms"] is None
    event = events_pb2.Event(message="first\nsecond ü\u2028")
    assert "\n" not in as_line(event)
    assert json.loads(as_line(event))["message"] == event.message


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    replica=st.builds(
        types_pb2.Replica,
        weights_bytes=st.integers(0, 2**64 - 1),
        inference_ms=floats,
        last_used_unix_s=st.floats(allow_nan=False, allow_infinity=False),
        state=st.sampled_from(types_pb2.ReplicaState.values()),
        pinned=st.booleans(),
        message=st.text(st.characters(exclude_categories=["Cs"])),
        version=st.none() | st.builds(types_pb2.VersionKey, model=st.just("a")),
        batching=st.none()
        | st.builds(types_pb2.Batching, preferred_sizes=st.lists(st.integers(0, 2**32 - 1))),
    )
)
def test_answers_are_the_canonical_json_but_for_the_strings_of_numbers(
    replica: types_pb2.Replica,
) -> None:
    canonical = json_format.MessageToDict(
        replica, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    answer = as_json(replica)
    assert numbers_as_text(answer, replica) == canonical
    # And back.
    schema = schema_of(types_pb2.Replica.DESCRIPTOR)
    given = schema.model_validate(answer).model_dump(exclude_unset=True)
    assert parsed(given, types_pb2.Replica()) == replica


def numbers_as_text(answer: dict[str, Any], message: Message) -> dict[str, Any]:
    fields = message.DESCRIPTOR.fields_by_name
    long = (fields["weights_bytes"].cpp_type, fields["last_used_unix_s"].cpp_type)
    return {
        name: str(value) if fields[name].cpp_type == long[0] else value
        for name, value in answer.items()
    }


def test_comments_of_the_protos_are_the_descriptions() -> None:
    schema = schema_of(types_pb2.VersionSettings.DESCRIPTOR).model_json_schema()
    assert schema["properties"]["iou"]["description"] == "0..1, default 0.7."
    assert schema["description"].startswith("Semantics of a version.")
    assert "default" not in schema["properties"]["iou"]
    assert comment_of("yolopool.v1.ModelService.LoadModel").startswith("Wants a version loaded")
    assert comment_of("yolopool.v1.PlannedStep.Action") == ""
    assert comment_of("yolopool.v1.Nothing") == ""

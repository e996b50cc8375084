"""Bodies as messages: what is taken, and what is refused by which name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from control_plane.gateway.admin.comments import comment_of
from control_plane.gateway.admin.schemas import parsed, schema_of
from control_plane.gateway.proto_json import dumps
from yolopool.errors import InvalidOption
from yolopool.v1 import bench_pb2, model_pb2, types_pb2

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
    with pytest.raises(InvalidOption, match=r"confidence|name"):
        taken(body)


def test_bytes_are_base64() -> None:
    sweep = schema_of(bench_pb2.Sweep.DESCRIPTOR)
    given = sweep.model_validate({"image": "/9g="}).model_dump(exclude_unset=True)
    assert parsed(given, bench_pb2.Sweep()).image == b"\xff\xd8"
    for wrong in ("/9g", "ä", "####"):
        with pytest.raises(ValidationError):
            sweep.model_validate({"image": wrong})


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
def test_what_is_answered_fits_the_schema_and_is_taken_back(replica: types_pb2.Replica) -> None:
    schema = schema_of(types_pb2.Replica.DESCRIPTOR)
    given = schema.model_validate_json(dumps(replica)).model_dump(exclude_unset=True)
    assert parsed(given, types_pb2.Replica()) == replica


def test_a_message_may_hold_its_own_kind() -> None:
    version = model_pb2.ModelVersion(weights_bytes=2**40)
    version.builds.add(pack="p").builds.add(pack="q")
    version.served["cpu"].unchecked = True
    answer = json.loads(dumps(version))
    assert answer["weights_bytes"] == 2**40
    given = schema_of(version.DESCRIPTOR).model_validate(answer).model_dump(exclude_unset=True)
    assert parsed(given, model_pb2.ModelVersion()) == version
    answer["builds"][0]["builds"][0]["pak"] = 1
    with pytest.raises(ValidationError, match=r"builds\.0\.builds\.0\.pak"):
        schema_of(version.DESCRIPTOR).model_validate(answer)


def test_comments_of_the_protos_are_the_descriptions() -> None:
    schema = schema_of(types_pb2.VersionSettings.DESCRIPTOR).model_json_schema()
    assert schema["properties"]["iou"]["description"] == "0..1, default 0.7."
    assert schema["description"].startswith("Semantics of a version.")
    assert "default" not in schema["properties"]["iou"]
    assert comment_of("yolopool.v1.ModelService.LoadModel").startswith("Wants a version loaded")
    assert comment_of("yolopool.v1.PlannedStep.Action") == ""
    assert comment_of("yolopool.v1.Nothing") == ""

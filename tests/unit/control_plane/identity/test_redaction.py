"""A caller sees nothing of models that are not granted: no entry, no name in a field or a text."""

import pytest

from control_plane.identity.redaction import redact, redacted_text, texts, words
from yolopool.v1 import events_pb2, explain_pb2, model_pb2, rollouts_pb2, types_pb2

HIDDEN = {"beta", "team/gamma"}


def hidden(name: str) -> bool:
    return name in HIDDEN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("beta@3 is pinned", "another model is pinned"),
        ("no room: team/gamma@1, alpha@2", "no room: another model, alpha@2"),
        ("it waits for beta.", "it waits for another model"),
        ("beta+onnx-int8-cpu@3 failed", "another model failed"),
        ("alphabeta, betas and alpha/beta stay", "alphabeta, betas and alpha/beta stay"),
        ("", ""),
    ],
)
def test_sentences_lose_the_names(text: str, shown: str) -> None:
    assert redacted_text(text, hidden) == shown


def test_entries_about_hidden_models_are_left_out() -> None:
    reply = model_pb2.ListModelsResponse(
        models=[
            model_pb2.Model(name="alpha", versions=[model_pb2.ModelVersion(
                version=types_pb2.VersionKey(model="alpha", version=1),
                waiting_reason="no room: team/gamma@1 is pinned")]),
            model_pb2.Model(name="beta"),
        ]
    )  # fmt: skip
    redact(reply, hidden)
    assert [model.name for model in reply.models] == ["alpha"]
    assert reply.models[0].versions[0].waiting_reason == "no room: another model is pinned"
    assert "gamma" not in str(reply)


def test_fields_that_name_a_hidden_model_are_cleared() -> None:
    event = events_pb2.Event(
        id="1", version=types_pb2.VersionKey(model="beta", version=2), message="beta@2 left"
    )
    redact(event, hidden)
    assert not event.HasField("version")
    assert event.message == "another model left"


def test_plans_lose_steps_of_hidden_models() -> None:
    reply = explain_pb2.PlanLoadResponse()
    for name in ("alpha", "beta", "alpha"):
        reply.steps.add(version=types_pb2.VersionKey(model=name, version=1), worker="w1")
    redact(reply, hidden)
    assert [step.version.model for step in reply.steps] == ["alpha", "alpha"]


def test_what_its_author_says_of_a_model_stays() -> None:
    version = model_pb2.ModelVersion(
        class_names=["beta", "nut"], architecture="beta", source_name="beta", message="beta left"
    )
    redact(version, hidden)
    assert (list(version.class_names), version.architecture) == (["beta", "nut"], "beta")
    assert (version.source_name, version.message) == ("beta", "another model left")


def test_all_strings_of_a_request_are_found() -> None:
    request = model_pb2.RegisterModelRequest(
        name="a",
        class_names=["b"],
        metadata={"c": "d"},
        placement=types_pb2.Placement(labels={"e": "f"}),
    )
    assert sorted(texts(request)) == ["a", "b", "c", "d", "e", "f"]
    assert words("'x/../team/gamma@3.' beta.") >= {"team/gamma", "beta", "x"}


def test_rollouts_of_hidden_models_are_left_out_and_names_of_classes_stay() -> None:
    reply = rollouts_pb2.ListRolloutsResponse(
        rollouts=[
            rollouts_pb2.Rollout(alias="alpha:stable", reasons=["beta@2 is better"]),
            rollouts_pb2.Rollout(alias="beta:stable"),
        ]
    )
    redact(reply, hidden)
    (kept,) = reply.rollouts
    assert (kept.alias, list(kept.reasons)) == ("alpha:stable", ["another model is better"])
    found = rollouts_pb2.GetRolloutResponse(classes=[rollouts_pb2.RolloutCount(name="beta")])
    redact(found, hidden)
    assert found.classes[0].name == "beta"

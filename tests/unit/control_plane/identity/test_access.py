"""The verdict on a call, by role and grants."""

import pytest

from control_plane.identity.access import RULES, About, Rule, Verdict, judged, name_of
from control_plane.types.access.api_key import Role
from yolopool.v1 import fleet_pb2, model_pb2

LOAD = RULES["/yolopool.v1.ModelService/LoadModel"]
FLEET = RULES["/yolopool.v1.FleetService/ListWorkers"]


@pytest.mark.parametrize(
    ("role", "grants", "verdict"),
    [
        (Role.DETECT, ("*",), (Verdict.ROLE_NEEDED, "")),
        (Role.OPERATE, ("*",), (Verdict.ALLOWED, "")),
        (Role.OPERATE, ("a",), (Verdict.ALLOWED, "")),
        (Role.OPERATE, ("b",), (Verdict.HIDDEN, "a")),
        (Role.OPERATE, (), (Verdict.HIDDEN, "a")),
        (Role.DETECT, ("b",), (Verdict.ROLE_NEEDED, "")),  # the role first: it tells nothing
        (Role.WORKER, ("*",), (Verdict.ROLE_NEEDED, "")),
    ],
)
def test_a_call_about_a_model(
    role: Role, grants: tuple[str, ...], verdict: tuple[Verdict, str]
) -> None:
    request = model_pb2.LoadModelRequest(model="a@3")
    assert judged(LOAD, role, grants, request) == verdict


def test_a_call_about_the_fleet_needs_every_model() -> None:
    request = fleet_pb2.ListWorkersRequest()
    assert judged(FLEET, Role.ADMIN, ("*",), request) == (Verdict.ALLOWED, "")
    assert judged(FLEET, Role.ADMIN, ("a*", "b*"), request) == (Verdict.GRANT_NEEDED, "")


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("a", "a"), ("team/a@3", "team/a"), ("a:stable", "a"), ("a+onnx-int8-cpu@3", "a"),
        ("a+onnx-int8-cpu", "a"), ("", ""), ("@@", ""), ("a@b@c", "a"),
    ],
)  # fmt: skip
def test_the_name_in_a_reference(reference: str, name: str) -> None:
    assert name_of(reference) == name


def test_a_rule_finds_names_if_it_is_about_models_and_only_then() -> None:
    nothing = Rule(Role.DETECT).models
    for method, rule in RULES.items():
        assert (rule.about is About.MODEL) == (rule.models is not nothing), method

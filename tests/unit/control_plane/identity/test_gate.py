"""Who calls, and what it is told: without a server."""

from typing import Any

import pytest

from control_plane.caller import CALLER, Principal, told
from control_plane.identity import key_secrets
from control_plane.identity.audit import Audit
from control_plane.identity.gate import Gate
from control_plane.identity.keyring import Keyring
from control_plane.types.access.api_key import ApiKey, Role
from yolopool.errors import (
    CredentialsInvalid,
    GrantNeeded,
    InvalidModelReference,
    ModelNotFound,
    NotFound,
    RegistryUnavailable,
    YolopoolError,
)
from yolopool.transport import bearer
from yolopool.v1 import detection_pb2, explain_pb2, model_pb2, types_pb2

SECRET = key_secrets.new_secret()
METHOD = "/yolopool.v1.ModelService/GetModel"


class Call:
    """What a gate asks of a call."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata


def gate(role: Role = Role.DETECT, is_loaded: bool = True) -> Gate:
    key = ApiKey(SECRET.id, "", "", role, ("a*",), (key_secrets.hashed(SECRET),), 0.0)
    keyring = Keyring(lambda: {key.id: key}, lambda: 1.0)
    return Gate(
        keyring, lambda: {"alpha", "beta"}, Audit(lambda _: {}), lambda: is_loaded, ("/docs",)
    )


async def test_before_the_keys_were_read_nobody_is_told_that_a_key_is_wrong() -> None:
    with pytest.raises(RegistryUnavailable):
        await gate(is_loaded=False).identified(METHOD, Call(*bearer(SECRET.text)))


class Shown(Call):
    """A call on a connection for which a worker showed its certificate."""

    def __init__(self, joined: str) -> None:
        super().__init__()
        self._names = [b"yolopool://worker/w", *([joined.encode()] if joined else [])]

    def auth_context(self) -> Any:
        return {"x509_subject_alternative_name": self._names}


async def test_before_the_keys_were_read_nobody_knows_who_was_revoked() -> None:
    joined = f"yolopool-joined://{SECRET.id}"
    assert (await gate().identified(METHOD, Shown(joined))).name == "certificate:w"
    with pytest.raises(RegistryUnavailable):
        await gate(is_loaded=False).identified(METHOD, Shown(joined))
    # A certificate that was issued by hand is not revoked.
    unread = gate(is_loaded=False)
    assert (await unread.identified(METHOD, Shown(""))).name == "certificate:w"


async def test_only_a_control_plane_speaks_for_another() -> None:
    other = Principal("key:x", Role.ADMIN, ("*",), "t")
    call = Call(*bearer(SECRET.text), *told(other))
    assert (await gate().identified(METHOD, call)).name == f"key:{SECRET.id}"
    assert await gate(Role.CONTROL_PLANE).identified(METHOD, call) == other
    wrong = Call(*bearer(SECRET.text), (CALLER, "{}"))
    with pytest.raises(CredentialsInvalid):
        await gate(Role.CONTROL_PLANE).identified(METHOD, wrong)


async def test_several_authorizations_are_none() -> None:
    with pytest.raises(CredentialsInvalid):
        await gate().identified(METHOD, Call(*bearer(SECRET.text) * 2))


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/docs", True), ("/docs/a.css", True), ("/docsx", False), ("/metrics", False),
        ("/livez", True), ("/livez/", False), ("/LIVEZ", False),
        ("/grpc.health.v1.Health/Check", True),
        ("/yolopool.v1.ModelService/ListModels", False),
    ],
)  # fmt: skip
def test_what_is_open_is_named_wholly(path: str, is_open: bool) -> None:
    assert gate().is_open(path) is is_open


def test_errors_do_not_name_what_is_hidden() -> None:
    caller = Principal("key:x", Role.DETECT, ("a*",))
    errors: list[YolopoolError] = [
        ModelNotFound("there is no model 'ax': did you mean alpha or beta?"),
        RegistryUnavailable("beta@3 is pinned", details={"by": "beta"}),
    ]
    for error in errors:
        shown = gate().veiled(error, caller, ("ax@3",))
        assert "beta" not in shown.message + str(shown.details)
        assert shown.reason == error.reason


@pytest.mark.parametrize("asked", ["a/../beta", "a/../gamma"])  # the first is a model, and hidden
def test_errors_repeat_what_was_asked_whether_or_not_it_is_a_model(asked: str) -> None:
    caller = Principal("key:x", Role.DETECT, ("a*",))
    model = model_pb2.GetModelRequest(model=asked)
    shown = gate().veiled(InvalidModelReference(f"{asked!r} is none"), caller, (asked,), model)
    assert shown.message == f"{asked!r} is none"
    of_id = explain_pb2.ExplainRequestRequest(request_id=asked)
    shown = gate().veiled(NotFound(f"request {asked!r} is not there"), caller, (), of_id)
    assert shown.message == f"request {asked!r} is not there"


def test_a_guess_in_a_request_is_not_confirmed_by_what_the_pool_says() -> None:
    caller = Principal("key:x", Role.DETECT, ("a*",))
    guess = detection_pb2.DetectRequest(model="alpha", request_id="beta")
    error = RegistryUnavailable("beta@3 is pinned")
    assert "beta" not in gate().veiled(error, caller, ("alpha",), guess).message


LOAD = "/yolopool.v1.ModelService/LoadModel"
ON_SOUTH = (types_pb2.Placement(pool="south"), types_pb2.Placement(labels={"pool": "south"}))


@pytest.mark.parametrize("placement", ON_SOUTH)
@pytest.mark.parametrize(
    ("tenant", "is_allowed"), [("", True), ("south", True), ("north", False), ("poor", False)]
)
async def test_a_tenant_places_on_its_own_workers(
    placement: types_pb2.Placement, tenant: str, is_allowed: bool
) -> None:
    """Also of its own model: the pools of others are not its to name."""
    pools = {"south": "south", "north": "north"}
    one = Gate(
        Keyring(dict, lambda: 1.0), lambda: {"a"}, Audit(lambda _: {}), lambda: True,
        pool_of=lambda name: pools.get(name, ""),
    )  # fmt: skip
    caller = Principal("key:1", Role.OPERATE, ("*",), tenant)
    request = model_pb2.LoadModelRequest(model="a", placement=placement)
    if is_allowed:
        one.allowed(LOAD, caller, request, Call())
        return
    with pytest.raises(GrantNeeded) as refused:
        one.allowed(LOAD, caller, request, Call())
    assert "north" not in refused.value.message or tenant == "north"
    one.allowed(LOAD, caller, model_pb2.LoadModelRequest(model="a"), Call())

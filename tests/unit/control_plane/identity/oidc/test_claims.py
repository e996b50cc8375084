"""What a token's claims give, by the file of issuers."""

from typing import Any

import pytest

from control_plane.identity.oidc.claims import principal_of, values
from control_plane.identity.oidc.issuer_file import Grant, Issuer
from control_plane.types.access.api_key import Role
from yolopool.errors import CredentialsInvalid, RoleNeeded

TABLE: dict[str, Any] = {
    "url": "https://login.example/a",
    "audience": "yolopool",
    "role_claim": "realm_access.roles",
    "grant": (
        Grant(when="boss", role="admin"),
        Grant(when="north", role="detect", models=("north/*",), tenant="north"),
        Grant(when="any", role="operate"),
    ),
}
ISSUER = Issuer(**TABLE)


def claims(*roles: Any, **more: Any) -> dict[str, Any]:
    return {"sub": "alice", "realm_access": {"roles": list(roles)}, **more}


def test_the_first_grant_of_the_file_counts_not_of_the_token() -> None:
    found = principal_of(claims("any", "north", "boss"), ISSUER)
    assert (found.role, found.name) == (Role.ADMIN, "token:alice@login.example")
    both = principal_of(claims("any", "north"), ISSUER)
    # Not the patterns of one with the role of the other.
    assert (both.role, both.grants, both.tenant) == (Role.DETECT, ("north/*",), "north")


@pytest.mark.parametrize("roles", [(), ("Boss",), ("boss ",), ({"boss": 1},), (["boss"],), (1,)])
def test_without_a_grant_there_is_no_role(roles: tuple[Any, ...]) -> None:
    with pytest.raises(RoleNeeded, match=r"realm_access\.roles"):
        principal_of(claims(*roles), ISSUER)


@pytest.mark.parametrize(
    ("given", "claim", "found"),
    [
        ({"scope": "openid pool:detect"}, "scope", ("openid", "pool:detect")),
        ({"https://x/roles": ["a b"]}, "https://x/roles", ("a b",)),
        ({"a.b": ["1"], "a": {"b": ["2"]}}, "a.b", ("1",)),
        ({"a": {"b": {"c": "1"}}}, "a.b.c", ("1",)),
        ({"a": ["b"]}, "a.b", ()),
        ({"a": None}, "a", ()),
        ({"a": {"b": 1}}, "a.b", ()),
        ({}, "a.b.c", ()),
    ],
)
def test_where_a_claim_is_found(given: dict[str, Any], claim: str, found: tuple[str, ...]) -> None:
    assert values(given, claim) == found


def test_models_of_a_claim_are_those_alone() -> None:
    issuer = ISSUER.model_copy(update={"models_claim": "models"})
    assert principal_of(claims("any", models=["a/*", "b"]), issuer).grants == ("a/*", "b")
    assert principal_of(claims("any", models="a/* b"), issuer).grants == ("a/*", "b")
    assert principal_of(claims("any", models=["a", "*"]), issuer).grants == ("*",)
    for nothing in (None, [], "", 5, [5]):
        assert principal_of(claims("any", models=nothing), issuer).grants == ()
    # What the file says goes before the claim.
    assert principal_of(claims("north", models=["*"]), issuer).grants == ("north/*",)
    for wrong in (["a\n"], ["x" * 200], [f"m{number}" for number in range(65)]):
        with pytest.raises(CredentialsInvalid):
            principal_of(claims("any", models=wrong), issuer)

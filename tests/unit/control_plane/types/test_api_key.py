"""What a key allows, how long, and which secrets are valid after a rotation."""

import math
from dataclasses import replace

import pytest

from control_plane.types.access.api_key import ApiKey, Joining, Role, SecretHash, is_granted

FIRST, SECOND = SecretHash("00", "11"), SecretHash("22", "33")
KEY = ApiKey("k", "cameras", "", Role.DETECT, ("*",), (FIRST,), 100.0)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.DETECT, {Role.DETECT}),
        (Role.OPERATE, {Role.DETECT, Role.OPERATE}),
        (Role.ADMIN, {Role.DETECT, Role.OPERATE, Role.ADMIN}),
        (Role.WORKER, {Role.WORKER}),
        (Role.CONTROL_PLANE, {Role.CONTROL_PLANE}),
    ],
)
def test_a_role_allows_itself_and_what_is_below_it(role: Role, allowed: set[Role]) -> None:
    assert {needed for needed in Role if role.allows(needed)} == allowed


@pytest.mark.parametrize(
    ("grants", "model", "granted"),
    [
        (("*",), "team/shapes", True),
        (("team-a/*",), "team-a/shapes", True),
        (("team-a/*",), "team-ab/shapes", False),
        (("team-a/*",), "team-a", False),
        (("shapes",), "shapes", True),
        (("shapes",), "Shapes", False),
        (("shapes",), "shapes2", False),
        (("a*", "b?"), "b1", True),
        ((), "shapes", False),
        (("*",), "", True),
    ],
)
def test_patterns_grant_whole_names(grants: tuple[str, ...], model: str, granted: bool) -> None:
    assert is_granted(grants, model) is granted


def test_a_key_is_valid_until_it_expires_or_is_revoked() -> None:
    assert KEY.is_valid(1e12)
    expiring = replace(KEY, expires_unix_s=200.0)
    assert [expiring.is_valid(now) for now in (199.9, 200.0, 201.0)] == [True, False, False]
    assert not replace(KEY, revoked_unix_s=150.0).is_valid(140.0)  # whatever a clock says


def test_a_key_ends_when_nothing_by_it_is_valid_any_more() -> None:
    assert KEY.ends_unix_s == math.inf
    assert replace(KEY, expires_unix_s=200.0).ends_unix_s == 200.0
    assert replace(KEY, expires_unix_s=200.0, revoked_unix_s=150.0).ends_unix_s == 150.0
    token = replace(KEY, role=Role.JOIN, expires_unix_s=200.0, joins=Joining(Role.WORKER))
    assert token.ends_unix_s == 200.0
    joined = token.joined("w", (), 120.0, 900.0)
    assert joined.ends_unix_s == 900.0
    # A record that went before its certificate ends would revoke it no more.
    assert joined.revoked(130.0).ends_unix_s == 900.0


def test_a_rotation_keeps_the_former_secret_for_its_overlap_alone() -> None:
    rotated = KEY.rotated(SECOND, 200.0, 60.0)
    assert rotated.valid_secrets(259.9) == (SECOND, replace(FIRST, until_unix_s=260.0))
    assert rotated.valid_secrets(260.0) == (SECOND,)
    assert KEY.rotated(SECOND, 200.0, 0.0).secrets == (SECOND,)
    third = rotated.rotated(SecretHash("44", "55"), 210.0, 60.0)
    assert [one.salt for one in third.secrets] == ["44", "22"]  # two at most
    assert replace(KEY, revoked_unix_s=1.0).valid_secrets(2.0) == ()

"""From the claims of a verified token to a caller. Pure."""

from collections.abc import Mapping
from typing import Any

from control_plane.caller import Principal
from control_plane.identity.oidc.issuer_file import Grant, Issuer
from control_plane.types.access.api_key import checked_grants
from yolopool.errors import CredentialsInvalid, RoleNeeded, YolopoolError
from yolopool.names import check_name

MAX_SUBJECT_CHARS = 255


def principal_of(claims: Mapping[str, Any], issuer: Issuer) -> Principal:
    """Who a token of this issuer is of. The first grant of its file that fits counts.

    Raises CredentialsInvalid, and RoleNeeded if no grant fits.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        raise CredentialsInvalid("the token does not say whose it is (sub)")
    if not subject.isprintable():
        raise CredentialsInvalid("the token's subject (sub) has characters that can't be shown")
    held = values(claims, issuer.role_claim)
    grant = next((grant for grant in issuer.grant if grant.when in held), None)
    if grant is None:
        raise RoleNeeded(
            f"the token is valid, and nothing in its claim {issuer.role_claim} gives a role here: "
            "ask an admin"
        )
    name = f"token:{subject}@{issuer.host}"
    return Principal(
        name, grant.gives, _grants(claims, issuer, grant), _tenant(claims, issuer, grant)
    )


def values(claims: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """The texts of a claim: those of a list, or the words of one text, as `scope` has them."""
    found = _find(claims, claim)
    if isinstance(found, str):
        return tuple(found.split())
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _find(claims: Mapping[str, Any], claim: str) -> Any:
    """The claim of that name, else the one that the dots in it lead to."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for part in claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _grants(claims: Mapping[str, Any], issuer: Issuer, grant: Grant) -> tuple[str, ...]:
    """The patterns of the grant, else those of the claim, else all. Without the claim none."""
    if grant.models is not None:
        return grant.models
    if not issuer.models_claim:
        return ("*",)
    patterns = values(claims, issuer.models_claim)
    try:
        return checked_grants(patterns) if patterns else ()
    except YolopoolError as error:
        raise CredentialsInvalid(
            f"the token's claim {issuer.models_claim} has what is no pattern of models"
        ) from error


def _tenant(claims: Mapping[str, Any], issuer: Issuer, grant: Grant) -> str:
    if grant.tenant or not issuer.tenant_claim:
        return grant.tenant
    tenant = _find(claims, issuer.tenant_claim)
    try:
        return check_name(tenant if isinstance(tenant, str) else "")
    except YolopoolError as error:
        raise CredentialsInvalid(
            f"the token's claim {issuer.tenant_claim} does not name a tenant"
        ) from error

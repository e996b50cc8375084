"""Finds the caller that a token of OpenID Connect is of: on the hot path from memory, else by its
signature and claims.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import ExpiredTokenError, JoseError, UnsupportedAlgorithmError
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from control_plane.caller import Principal
from control_plane.identity.oidc.claims import principal_of
from control_plane.identity.oidc.issuer_file import Issuer
from control_plane.identity.oidc.issuer_keys import ALGORITHMS, IssuerKeys
from yolopool.errors import CredentialsInvalid

MAX_KNOWN, MAX_TOKEN_CHARS = 10_000, 8192
# What a token may say that it is: others of the same issuer are not for this use.
TYPES = ("jwt", "at+jwt", "application/at+jwt")


class _Algorithms(JWSRegistry):
    """Those of the list alone, by which a key is chosen as well."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRY = _Algorithms(strict_check_header=False)


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    keys: IssuerKeys
    generation: int
    until_unix_s: float


def looks_like_one(text: str) -> bool:
    """Whether a caller sent a token: three parts. No key of ours has a dot."""
    return text.count(".") == 2


class Tokens:
    """`now`: Unix seconds."""

    def __init__(self, issuers: Sequence[IssuerKeys], now: Callable[[], float]) -> None:
        self._issuers = {keys.issuer.url: keys for keys in issuers}
        self._claims = {keys.issuer.url: _wanted(keys.issuer, now) for keys in issuers}
        self._now = now
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def warm(self) -> None:
        """Begins to read the keys, so that the first caller does not wait for them."""
        for keys in self._issuers.values():
            keys.refresh()

    def recognised(self, text: str) -> Principal | None:
        """The caller of a token that was verified before and is valid now; None: verify it."""
        proof = _proof(text)
        known = self._known.get(proof)
        if known is None:
            return None
        keys = known.keys
        if (
            known.until_unix_s <= self._now()
            or known.generation != keys.generation
            or not keys.stand()
        ):
            del self._known[proof]
            return None
        return known.principal

    async def verified(self, text: str) -> Principal:
        """The caller of a token. Raises CredentialsInvalid, RoleNeeded if its claims give no role,
        and IssuerUnavailable.
        """
        signed, keys = self._extracted(text)
        header = signed.headers()
        key = await keys.key(header.get("kid"), header["alg"])
        if key is None:
            _refuse("its key is none of its issuer's")
        try:
            if not jws.validate_compact(signed, key, registry=_REGISTRY):
                _refuse("its signature is wrong")
            claims = json.loads(signed.payload)
            self._claims[keys.issuer.url].validate(claims)
        except ExpiredTokenError:
            _refuse("it has expired")
        except (JoseError, ValueError, TypeError, KeyError) as error:
            _refuse(f"it is not valid here ({_why(error)})")
        _check_client(claims, keys.issuer)
        principal = principal_of(claims, keys.issuer)
        until = claims["exp"] + int(keys.issuer.clock_skew_s)
        self._known[_proof(text)] = _Known(principal, keys, keys.generation, until)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    def _extracted(self, text: str) -> tuple[CompactSignature, IssuerKeys]:
        """The parts of a token that is not verified yet, and its issuer as it says."""
        if len(text) > MAX_TOKEN_CHARS:
            _refuse(f"it has more than {MAX_TOKEN_CHARS} characters")
        try:
            signed = jws.extract_compact(text.encode("ascii"), registry=_REGISTRY)
            header, claims = signed.headers(), json.loads(signed.payload)
            kind = header.get("typ", "JWT")
            names = (header["alg"], header.get("kid", ""), kind, claims["iss"])
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            _refuse("it can't be read")
        if not all(isinstance(name, str) for name in names) or kind.lower() not in TYPES:
            _refuse("it is of another type")
        if header["alg"] not in ALGORITHMS:
            _refuse("its algorithm is not allowed")
        if "crit" in header:
            _refuse("its header has what must be understood, and is not (crit)")
        keys = self._issuers.get(claims["iss"])
        if keys is None:
            _refuse("its issuer is not trusted here")
        return signed, keys


def _wanted(issuer: Issuer, now: Callable[[], float]) -> JWTClaimsRegistry:
    return JWTClaimsRegistry(
        lambda: int(now()),
        int(issuer.clock_skew_s),
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
    )


def _check_client(claims: dict[str, Any], issuer: Issuer) -> None:
    if issuer.clients and claims.get("azp", claims.get("client_id")) not in issuer.clients:
        _refuse("it was given to another client (azp)")


def _why(error: Exception) -> str:
    """Which claim it is, without what the token says."""
    claim = getattr(error, "claim", "")
    return str(claim) if claim in ("iss", "aud", "exp", "nbf", "iat", "sub", "jti") else "claims"


def _refuse(why: str) -> NoReturn:
    raise CredentialsInvalid(f"the token is refused: {why}")


def _proof(text: str) -> bytes:
    """What a verified token is kept under: not the token itself."""
    return hashlib.sha256(text.encode()).digest()

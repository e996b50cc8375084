"""The public keys of an issuer: read when they are needed, kept, and read again as they change."""

import asyncio
import ssl
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from control_plane.identity.oidc import document
from control_plane.identity.oidc.document import NotReadable
from control_plane.identity.oidc.issuer_file import Issuer, check_url, is_plain
from yolopool.errors import IssuerUnavailable

log = structlog.get_logger()

# How old keys get before they are read again, and how long after a try there is no other: a token
# with a key that nobody knows must not make one request each.
REFRESH_S, MIN_PAUSE_S = 300.0, 10.0
MAX_KEYS, MIN_RSA_BITS = 64, 2048
DISCOVERY = "/.well-known/openid-configuration"

Key = RSAKey | ECKey | OKPKey
Read = Callable[[str], Awaitable[dict[str, Any]]]
# Of each algorithm, what a key must be. There is no other: none, and what needs a shared secret,
# are not there.
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    **{f"{family}{bits}": ("RSA", "") for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}


class IssuerKeys:
    """`generation` grows when the keys change. `now`: monotonic seconds."""

    def __init__(self, issuer: Issuer, now: Callable[[], float], read: Read | None = None) -> None:
        """Raises OSError if the authority's file can't be read, ValueError if it is none."""
        self.issuer = issuer
        self.generation = 0
        self._now = now
        self._read = read or _reader(issuer)
        self._keys: dict[str, Key] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._failing = False
        self._reading: asyncio.Task[None] | None = None

    def stand(self) -> bool:
        """Whether the keys may be trusted now. Has them read again, behind the caller's back, when
        they are old.
        """
        now = self._now()
        if self._read_at is None or now - self._read_at > self.issuer.keys_kept_s:
            return False
        if now - self._read_at > REFRESH_S:
            self.refresh()
        return True

    async def key(self, kid: str | None, algorithm: str) -> Key | None:
        """The key with which a token was signed; None: the issuer has no such. Raises
        IssuerUnavailable if it can't be asked, and was not in the time that its keys are kept.
        """
        if not self.stand():
            await self._refreshed()
            if not self.stand():
                raise IssuerUnavailable(
                    f"the keys of {self.issuer.host} can't be read now: try again shortly"
                )
        found = self._find(kid, algorithm)
        if found is None:
            await self._refreshed()
            found = self._find(kid, algorithm)
        return found

    def refresh(self) -> asyncio.Task[None] | None:
        """Begins to read the keys, unless somebody does or just did."""
        if self._reading is None:
            now = self._now()
            if self._tried_at is not None and now - self._tried_at < MIN_PAUSE_S:
                return None
            self._tried_at = now
            self._reading = asyncio.create_task(self._take(), name="read an issuer's keys")
            self._reading.add_done_callback(self._done)
        return self._reading

    async def _refreshed(self) -> None:
        task = self.refresh()
        if task is not None:
            # A caller who leaves does not end what others wait for.
            await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._reading = None

    async def _take(self) -> None:
        try:
            keys = await self._fetched()
        except NotReadable as error:
            if not self._failing:
                log.warning(
                    "the issuer's keys can't be read: those that are known stand for now",
                    issuer=self.issuer.url,
                    why=str(error)[:300],
                    known=len(self._keys),
                    stand_for_s=self.issuer.keys_kept_s,
                )
            self._failing = True
            return
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
        if self._failing or self._read_at is None:
            log.info("the issuer's keys were read", issuer=self.issuer.url, keys=len(keys))
        self._failing = False
        self._read_at = self._now()

    async def _fetched(self) -> dict[str, Key]:
        url = self.issuer.url
        found = await self._read(url.rstrip("/") + DISCOVERY)
        if found.get("issuer") != url:
            raise NotReadable(f"{url}: its document is of another issuer")
        where = found.get("jwks_uri")
        try:
            check_url(where if isinstance(where, str) else "")
        except ValueError as error:
            raise NotReadable(f"{url}: jwks_uri: {error}") from error
        if is_plain(str(where)) and not is_plain(url):
            # What an issuer elsewhere names on loopback is no server of its own.
            raise NotReadable(f"{url}: jwks_uri: it is not https, as the issuer is")
        keys = keys_of(await self._read(str(where)))
        if not keys:
            raise NotReadable(f"{where} has no key that can be used")
        return keys

    def _find(self, kid: str | None, algorithm: str) -> Key | None:
        """By its id; a token without one fits if there is one key alone for its algorithm."""
        if kid is not None:
            key = self._keys.get(kid)
            return key if key is not None and fits(key, algorithm) else None
        fitting = [key for key in self._keys.values() if fits(key, algorithm)]
        return fitting[0] if len(fitting) == 1 else None


def keys_of(found: Mapping[str, Any]) -> dict[str, Key]:
    """The keys of a JWKS by their id, without those that can't or may not be used: secret ones,
    those for encryption, weak ones. Raises NotReadable if it is none.
    """
    listed = found.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise NotReadable(f"the key set has no list of at most {MAX_KEYS} keys")
    keys: dict[str, Key] = {}
    for number, raw in enumerate(listed):
        key = _imported(raw)
        if key is not None:
            kid = raw.get("kid")
            keys.setdefault(kid if isinstance(kid, str) else f"\0{number}", key)
    return keys


def fits(key: Key, algorithm: str) -> bool:
    """Whether a key is one of the algorithm: of its type and curve, and not of another one."""
    needed = ALGORITHMS.get(algorithm)
    if needed is None or key.get("alg") not in (None, algorithm):
        return False
    kind, curve = needed
    return key.key_type == kind and (not curve or key.get("crv") == curve)


def _imported(raw: Any) -> Key | None:
    if not isinstance(raw, dict) or raw.get("use", "sig") != "sig":
        return None
    try:
        if "verify" not in raw.get("key_ops", ("verify",)):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # what is weak is refused below
            key = JWKRegistry.import_key(raw)
        if not isinstance(key, RSAKey | ECKey | OKPKey) or key.is_private:
            return None
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return key


def _reader(issuer: Issuer) -> Read:
    context = ssl.create_default_context(cafile=issuer.ca)
    return lambda url: document.read(url, context)

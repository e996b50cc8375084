"""What a caller sends as its key, and the hash of it that the registry keeps.

A key is `yp_ID_SECRET`: the id is shown in lists and logs, the secret is shown once. The hash is
scrypt (RFC 7914), so that a copied registry gives no keys away.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from control_plane.types.access.api_key import SecretHash

_TEXT = re.compile(r"yp_([0-9a-f]{10})_([0-9a-f]{48})")
# 4 MiB and about 10 ms: the secret has 192 random bits, so that nobody guesses it anyway.
_COST = {"n": 2**12, "r": 8, "p": 1, "dklen": 32}


@dataclass(frozen=True, slots=True)
class KeySecret:
    """The two parts of a key. Its repr does not tell the secret."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"KeySecret({self.id})"

    @property
    def text(self) -> str:
        """As the caller sends it."""
        return f"yp_{self.id}_{self.secret}"


def new_secret(id_: str = "") -> KeySecret:
    """A random secret; of a new key if there is no id."""
    return KeySecret(id_ or secrets.token_hex(5), secrets.token_hex(24))


def parsed(text: str) -> KeySecret | None:
    """The parts of what a caller sent; None: it is no key."""
    match = _TEXT.fullmatch(text)
    return KeySecret(match[1], match[2]) if match is not None else None


def hashed(secret: KeySecret) -> SecretHash:
    """Takes about 10 ms, without holding the interpreter."""
    salt = secrets.token_bytes(16)
    return SecretHash(salt.hex(), _digest(secret, salt).hex())


def matches(secret: KeySecret, known: SecretHash) -> bool:
    """Whether the hash is of this secret. Takes the same time whatever differs."""
    return hmac.compare_digest(
        _digest(secret, bytes.fromhex(known.salt)), bytes.fromhex(known.digest)
    )


def _digest(secret: KeySecret, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.secret.encode(), salt=salt, **_COST)

"""A key as a browser keeps it: sealed, for a while. Pure but for the nonce.

A cookie goes to every port of a host and lies in the browser's files: what is in it must be of no
use anywhere else. Whoever opens it asks for the key again, so that a key that was revoked ends it.
"""

import base64
import hashlib
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# From one sign-in to the next. A token's own end may come before.
LASTS_S = 12 * 3600.0
# Browsers keep 4096 bytes of a cookie, its name and its attributes included.
MAX_KEY_CHARS = 2800
_NONCE_BYTES = 12
_HEAD = struct.Struct(">d")


class SessionSeal:
    """`secret`: what all control planes of a pool share, so that any takes a session; empty: this
    process' own, and its sessions end with it.
    """

    def __init__(self, secret: str = "") -> None:
        material = secret.encode() or os.urandom(32)
        self._cipher = AESGCM(hashlib.blake2b(material, digest_size=32, person=b"console").digest())

    def sealed(self, key: str, now: float) -> str:
        """A key, for a cookie; now: Unix seconds."""
        nonce = os.urandom(_NONCE_BYTES)
        inside = _HEAD.pack(now + LASTS_S) + key.encode()
        box = nonce + self._cipher.encrypt(nonce, inside, None)
        return base64.urlsafe_b64encode(box).decode().rstrip("=")

    def opened(self, text: str, now: float) -> str:
        """The key in a cookie; empty: nobody of this pool sealed it, or its time is over."""
        try:
            box = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            inside = self._cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], None)
            (until_s,) = _HEAD.unpack_from(inside)
        except (ValueError, InvalidTag, struct.error):
            return ""
        return inside[_HEAD.size :].decode() if now < until_s else ""

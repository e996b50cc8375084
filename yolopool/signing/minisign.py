"""The format of minisign: public keys (.pub) and detached ed25519 signatures (.minisig).

https://jedisct1.github.io/minisign/#signature-format describes it. Only checked here: the program
`minisign` makes keys and signs.
"""

import base64
import binascii
import hashlib
import mmap
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# A trusted comment has at most 8 KiB, and the rest of the text is short.
MAX_BYTES = 10 * 1024
_WHOLE, _HASHED = b"Ed", b"ED"
_UNTRUSTED, _TRUSTED = "untrusted comment:", "trusted comment: "


def hasher() -> hashlib.blake2b:
    """What is signed of a file, unless the signature is of the legacy form: its BLAKE2b-512."""
    return hashlib.blake2b(digest_size=64)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: its number, as it is in files, and its 32 bytes."""

    number: bytes
    point: bytes

    @property
    def name(self) -> str:
        """The number as minisign writes it, sixteen hexadecimal digits."""
        return self.number[::-1].hex().upper()


@dataclass(frozen=True, slots=True)
class Signature:
    """`comment` is trusted once `is_whole`; `by_hash` says whether the hash of the file is signed,
    else the file itself.
    """

    key_number: bytes
    by_hash: bool
    signed: bytes
    comment: str
    proof: bytes

    @property
    def key_name(self) -> str:
        return self.key_number[::-1].hex().upper()

    def is_whole(self, key: Key) -> bool:
        """Whether the signature and its comment were written by the holder of the key."""
        return self.key_number == key.number and _verifies(
            key, self.proof, self.signed + self.comment.encode()
        )

    def is_of(self, key: Key, message: bytes | mmap.mmap) -> bool:
        """Whether the holder of the key signed `message`: the file's hash, or all of the file."""
        return self.key_number == key.number and _verifies(key, self.signed, message)


def parse_key(text: str) -> Key:
    """Reads a .pub file, or its second line alone. Raises ValueError."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0].startswith(_UNTRUSTED):
        lines = lines[1:]
    raw = _decoded(lines[0] if len(lines) == 1 else "", 2 + 8 + 32, "the public key")
    if raw[:2] != _WHOLE:
        raise ValueError("the public key is not of ed25519")
    return Key(raw[2:10], raw[10:])


def parse_signature(text: str) -> Signature:
    """Reads a .minisig file. Raises ValueError."""
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    lines = text.strip("\r\n").split("\n")
    lines = [line.rstrip("\r") for line in lines]
    if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise ValueError("it has not the four lines of a .minisig file")
    raw = _decoded(lines[1], 2 + 8 + 64, "the signature")
    if raw[:2] not in (_WHOLE, _HASHED):
        raise ValueError(f"its algorithm {raw[:2]!r} is neither ED nor Ed")
    proof = _decoded(lines[3], 64, "the signature of the comment")
    comment = lines[2].removeprefix(_TRUSTED)
    return Signature(raw[2:10], raw[:2] == _HASHED, raw[10:], comment, proof)


def _decoded(line: str, size: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size:
        raise ValueError(f"{what} is not {size} bytes in base64")
    return raw


def _verifies(key: Key, signature: bytes, message: bytes | mmap.mmap) -> bool:
    try:
        # Typed for bytes; a map is read where it is.
        Ed25519PublicKey.from_public_bytes(key.point).verify(signature, message)  # type: ignore[arg-type]
    except (InvalidSignature, ValueError):
        return False
    return True

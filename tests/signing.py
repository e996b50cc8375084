"""A signer, who writes what the program minisign does; see tests/unit/yolopool/signing."""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Signer:
    number: bytes
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def name(self) -> str:
        return self.number[::-1].hex().upper()

    def public(self, path: Path) -> Path:
        """Writes the .pub file."""
        raw = b"Ed" + self.number + self.key.public_key().public_bytes_raw()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"untrusted comment: key\n{base64.b64encode(raw).decode()}\n")
        return path

    def sign(self, data: bytes, comment: str = "for tests", *, legacy: bool = False) -> str:
        """The text of the .minisig file."""
        signed = self.key.sign(data if legacy else hashlib.blake2b(data).digest())
        raw = (b"Ed" if legacy else b"ED") + self.number + signed
        proof = self.key.sign(signed + comment.encode())
        return (
            f"untrusted comment: by a test\n{base64.b64encode(raw).decode()}\n"
            f"trusted comment: {comment}\n{base64.b64encode(proof).decode()}\n"
        )

"""Whose signatures count: the public keys a process was given, and whether a model needs one."""

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path

from yolopool.errors import SignatureInvalid, SignatureRequired
from yolopool.signing import minisign
from yolopool.signing.minisign import Key, Signature

_CHUNK_BYTES = 4 * 1024**2
# Texts whose signer is kept in mind.
_MAX_KNOWN = 4096
SIGN = "sign it (minisign -S -m FILE) and give FILE.minisig with it"


class Signers:
    """With `required`, what nobody of them signed is refused."""

    def __init__(self, keys: Iterable[Key] = (), required: bool = False) -> None:
        self._keys = {key.number: key for key in keys}
        self.required = required
        # What was found of each text: a version is looked at at each of its changes.
        self._whole: dict[str, str] = {}

    def check(self, path: Path, sha256: str, text: str) -> str:
        """Whose signature of a stored file `text` is: the name of the key; empty: nobody's, which
        is allowed. Reads all of the file, about a second a gigabyte; blocks.

        Raises SignatureRequired, and SignatureInvalid for one that is not of a trusted signer, or
        not of these bytes, which must have this SHA-256.
        """
        found = self.check_text(text)
        if found is None:
            return ""
        signature, key = found
        if not signature.is_whole(key) or not _is_of_file(signature, key, path, sha256):
            raise SignatureInvalid(
                f"the signature of the key {key.name} is not of these bytes: give the .minisig of "
                "this very file, or sign it again"
            )
        return key.name

    def check_text(self, text: str) -> tuple[Signature, Key] | None:
        """What can be said of a signature before the file is there: it, and the key that it says it
        is of; None: nobody's, which is allowed. Raises as `check` does.
        """
        if not self._keys:
            return None  # nobody is trusted, so that a signature would say nothing
        if not text:
            if self.required:
                raise SignatureRequired(f"only signed models are taken here: {SIGN}")
            return None
        signature = self._parsed(text)
        key = self._keys.get(signature.key_number)
        if key is None:
            raise SignatureInvalid(
                f"the signature is of the key {signature.key_name}, not trusted here: have "
                "the file signed by a trusted signer, or have the key added to --trusted-signers"
            )
        return signature, key

    def still_trust(self, text: str, signer: str) -> bool:
        """Whether a signature that was checked once, and was `signer`'s, is of a key that is
        trusted now. Cheap: the file is not read.
        """
        if text not in self._whole:
            if len(self._whole) >= _MAX_KNOWN:
                self._whole.clear()
            self._whole[text] = self._signer_of(text)
        return bool(signer) and self._whole[text] == signer

    def _signer_of(self, text: str) -> str:
        try:
            signature = minisign.parse_signature(text)
        except ValueError:
            return ""
        key = self._keys.get(signature.key_number)
        return key.name if key is not None and signature.is_whole(key) else ""

    def _parsed(self, text: str) -> Signature:
        try:
            return minisign.parse_signature(text)
        except ValueError as error:
            raise SignatureInvalid(
                f"this is no signature of minisign ({error}): give the text of a .minisig file"
            ) from error


def comment_of(text: str) -> str:
    """The trusted comment of a signature that was checked; empty: there is none."""
    try:
        return minisign.parse_signature(text).comment
    except ValueError:
        return ""


def read_keys(places: Iterable[Path]) -> tuple[Key, ...]:
    """The keys in files, and in the .pub files of folders. Raises ValueError for one that can't be
    used, and for a place without any; OSError.
    """
    keys = []
    for place in places:
        files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
        if not files:
            raise ValueError(f"{place} has no .pub file: put the public keys of signers there")
        for file in files:
            try:
                keys.append(minisign.parse_key(file.read_text(encoding="utf-8")))
            except (ValueError, UnicodeDecodeError) as error:
                raise ValueError(f"{file} is no public key of minisign: {error}") from error
    return tuple(keys)


def _is_of_file(signature: Signature, key: Key, path: Path, sha256: str) -> bool:
    digest, hashed = hashlib.sha256(), minisign.hasher()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            hashed.update(chunk)
        if digest.hexdigest() != sha256:
            return False
        if signature.by_hash:
            return signature.is_of(key, hashed.digest())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            return signature.is_of(key, whole)

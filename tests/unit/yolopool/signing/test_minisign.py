"""The format: files that the program minisign 0.11 wrote, and every way to be none."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.signing import Signer
from yolopool.signing import minisign

FILE = b"a file of weights\n"
# minisign -G -W; minisign -S -m weights.pt -t '...'; the same with -l.
PUBLIC = """untrusted comment: minisign public key F215A3597B6B3BC0
RWTAO2t7WaMV8lsaTGHmlTOE8YiiNg5rZ2+bzXHshbPjD7u15VQRDLs8
"""
HASHED = """untrusted comment: signature from minisign secret key
RUTAO2t7WaMV8oQivTWdjS6iZWVQSflCeuIi1QFFhZ0PQ8XDd+MKLXrrpVirBCPEQtGXPkYw/P2qdZQ0OKskIT3gh28uGaucCgY=
trusted comment: timestamp:1 file:weights.pt
4TDxw54NFdGoNj7XTdjiJFLX2eGZaUaa0WXI2vY2dE/SkyMcARBpEbaGSilE0/tVDN2P5Db24VJo9Ihs37TzAw==
"""
LEGACY = """untrusted comment: signature from minisign secret key
RWTAO2t7WaMV8o0ZczcxJbuUEnERlR/1jVWtQBi/TINyfJX90N+wHNsmFDvszzaDKv3dTzZXc3tmRDAugBZ4/W9NJMLBp6bA6Q4=
trusted comment: legacy comment, with é
tYoCOMN024wCmTIQZu7jDe/lvhRvSvdcFOGkcBMNYhxc6VP4ryAKbxJ/TSuQVMNkp2MTa0cumgmvnAkvcTlzAA==
"""


@pytest.mark.parametrize(
    ("text", "by_hash", "comment"),
    [(HASHED, True, "timestamp:1 file:weights.pt"), (LEGACY, False, "legacy comment, with é")],
    ids=["prehashed", "legacy"],
)
def test_what_minisign_wrote_is_read_and_checked(text: str, by_hash: bool, comment: str) -> None:
    key, signature = minisign.parse_key(PUBLIC), minisign.parse_signature(text)
    assert key.name == signature.key_name == "F215A3597B6B3BC0"
    assert (signature.by_hash, signature.comment) == (by_hash, comment)
    message = hashlib.blake2b(FILE).digest() if by_hash else FILE
    assert signature.is_whole(key)
    assert signature.is_of(key, message)
    assert not signature.is_of(key, message + b" ")
    # The key alone, as `minisign -P` takes it.
    assert minisign.parse_key(PUBLIC.splitlines()[1]) == key


def test_line_ends_of_windows_change_nothing() -> None:
    signature = minisign.parse_signature(HASHED.replace("\n", "\r\n"))
    assert signature == minisign.parse_signature(HASHED)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("weights.pt", "weights.pX"),
        lambda text: text.replace("4TDxw54N", "4TDxw54O"),
        lambda text: text.replace("oQivTWd", "oQivTWe"),
    ],
    ids=["comment", "signature of the comment", "signature"],
)
def test_a_change_anywhere_is_found(change) -> None:  # type: ignore[no-untyped-def]
    assert change(HASHED) != HASHED
    assert not minisign.parse_signature(change(HASHED)).is_whole(minisign.parse_key(PUBLIC))


def test_the_comment_alone_proves_nothing_of_the_file() -> None:
    """A signature of the comment over another signature: of a file that was signed elsewhere."""
    signer = Signer(b"12345678")
    ours, other = signer.sign(b"ours").splitlines(), signer.sign(b"theirs").splitlines()
    mixed = minisign.parse_signature("\n".join([*ours[:2], *other[2:]]))
    raw = b"Ed" + signer.number + signer.key.public_key().public_bytes_raw()
    key = minisign.parse_key(base64.b64encode(raw).decode())
    assert mixed.is_of(key, hashlib.blake2b(b"ours").digest())
    assert not mixed.is_whole(key)


def test_a_key_of_the_same_number_is_another_key() -> None:
    signer, forger = Signer(b"12345678"), Signer(b"12345678")
    raw = b"Ed" + signer.number + signer.key.public_key().public_bytes_raw()
    key = minisign.parse_key(base64.b64encode(raw).decode())
    forged = minisign.parse_signature(forger.sign(FILE))
    assert forged.key_name == key.name
    assert not forged.is_whole(key)
    assert not forged.is_of(key, hashlib.blake2b(FILE).digest())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        HASHED.replace("trusted comment: t", "comment: t"),
        HASHED.replace("untrusted", "trusted"),
        "\n".join(HASHED.splitlines()[:3]),
        HASHED + "more\n",
        HASHED.replace("RUTA", "RVTA"),  # an algorithm of another name
        HASHED.replace("RUTA", "RU-A"),
        HASHED.replace("ucCgY=", "ucCg=="),
        HASHED.replace("timestamp", "t" * minisign.MAX_BYTES),
    ],
)
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has|not 74|not 64|algorithm"):
        minisign.parse_signature(text)


@pytest.mark.parametrize("text", ["", "x", HASHED, PUBLIC + "more", PUBLIC.replace("RWTA", "RUTA")])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        minisign.parse_key(text)


@given(st.text())
def test_any_text_is_a_signature_or_a_refusal(text: str) -> None:
    try:
        minisign.parse_signature(text)
    except ValueError:
        return


@given(st.binary(max_size=200), st.text(st.characters(exclude_categories=("C", "Z"))))
def test_what_is_signed_is_verified(data: bytes, comment: str) -> None:
    signer = Signer(b"abcdefgh")
    raw = b"Ed" + signer.number + signer.key.public_key().public_bytes_raw()
    key = minisign.parse_key(base64.b64encode(raw).decode())
    signature = minisign.parse_signature(signer.sign(data, comment))
    assert signature.comment == comment
    assert signature.is_whole(key)
    assert signature.is_of(key, hashlib.blake2b(data).digest())

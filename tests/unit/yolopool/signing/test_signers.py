"""Whose signatures count, of which bytes, and what is said of the others."""

import hashlib
from pathlib import Path

import pytest

from tests.signing import Signer
from yolopool.errors import SignatureInvalid, SignatureRequired
from yolopool.signing.signers import Signers, comment_of, read_keys

FILE = b"weights" * 1000
SHA = hashlib.sha256(FILE).hexdigest()
ANNE, BERT = Signer(b"\1" * 8), Signer(b"\2" * 8)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / SHA
    path.write_bytes(FILE)
    return path


def trusting(folder: Path, *signers: Signer, required: bool = True) -> Signers:
    keys = [one.public(folder / "keys" / f"{one.name}.pub") for one in signers]
    return Signers(read_keys(keys), required)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_trusted_signer_is_named(stored: Path, tmp_path: Path, legacy: bool) -> None:
    signers = trusting(tmp_path, ANNE, BERT)
    text = BERT.sign(FILE, "release 3", legacy=legacy)
    assert signers.check(stored, SHA, text) == BERT.name
    assert comment_of(text) == "release 3"
    assert signers.still_trust(text, BERT.name)


def test_who_is_not_trusted_is_named_too(stored: Path, tmp_path: Path) -> None:
    signers = trusting(tmp_path, ANNE)
    with pytest.raises(SignatureInvalid, match=BERT.name):
        signers.check(stored, SHA, BERT.sign(FILE))
    assert not signers.still_trust(BERT.sign(FILE), BERT.name)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_signature_of_other_bytes_is_refused(stored: Path, tmp_path: Path, legacy: bool) -> None:
    with pytest.raises(SignatureInvalid, match="not of these bytes"):
        trusting(tmp_path, ANNE).check(stored, SHA, ANNE.sign(FILE + b"!", legacy=legacy))


def test_the_stored_bytes_count_and_not_their_name(stored: Path, tmp_path: Path) -> None:
    """Bytes that are not what their digest says are nobody's, even with their own signature."""
    stored.write_bytes(b"other bytes")
    with pytest.raises(SignatureInvalid, match="not of these bytes"):
        trusting(tmp_path, ANNE).check(stored, SHA, ANNE.sign(b"other bytes"))


def test_nothing_is_refused_where_signatures_are_required(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(SignatureRequired, match="minisign -S"):
        trusting(tmp_path, ANNE).check(stored, SHA, "")
    assert trusting(tmp_path, ANNE, required=False).check(stored, SHA, "") == ""
    # A wrong one is refused everywhere.
    with pytest.raises(SignatureInvalid, match="four lines"):
        trusting(tmp_path, ANNE, required=False).check(stored, SHA, "x")


def test_who_trusts_nobody_checks_nothing(stored: Path) -> None:
    assert Signers().check(stored, SHA, ANNE.sign(FILE)) == ""
    assert Signers().check(stored, SHA, "no signature at all") == ""


def test_a_signer_that_is_not_trusted_any_more_counts_no_more(tmp_path: Path) -> None:
    text = ANNE.sign(FILE)
    assert trusting(tmp_path, ANNE, BERT).still_trust(text, ANNE.name)
    later = trusting(tmp_path, BERT)
    assert not later.still_trust(text, ANNE.name)
    assert not later.still_trust("", "")
    # A record that names another signer than its signature is of.
    assert not trusting(tmp_path, ANNE, BERT).still_trust(text, BERT.name)
    # One whose bytes nobody checked.
    assert not trusting(tmp_path, ANNE).still_trust(text, "")


def test_keys_are_files_and_folders(tmp_path: Path) -> None:
    ANNE.public(tmp_path / "keys" / "anne.pub")
    BERT.public(tmp_path / "bert.pub")
    (tmp_path / "keys" / "README").write_text("no key")
    names = [key.name for key in read_keys([tmp_path / "keys", tmp_path / "bert.pub"])]
    assert names == [ANNE.name, BERT.name]
    with pytest.raises(ValueError, match=r"README is no public key"):
        read_keys([tmp_path / "keys" / "README"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no \.pub file"):
        read_keys([tmp_path / "empty"])
    with pytest.raises(OSError, match="missing"):
        read_keys([tmp_path / "missing.pub"])

"""A key is recognised without a hash after its first use, for as long as it is valid."""

import asyncio
from dataclasses import replace

import pytest

from control_plane.identity import key_secrets, keyring
from control_plane.identity.keyring import Keyring
from control_plane.types.access.api_key import ApiKey, Role, SecretHash
from yolopool.errors import CredentialsInvalid, ResourceExhausted


class Known:
    """The keys of desired state, a clock, and how often a hash was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secret = key_secrets.new_secret()
        hashed = key_secrets.hashed(self.secret)
        self.key = ApiKey(self.secret.id, "", "north", Role.DETECT, ("a*",), (hashed,), 1.0)
        self.keys = {self.key.id: self.key}
        self.now = 10.0
        self.hashes = 0
        self.ring = Keyring(lambda: self.keys, lambda: self.now)
        matches = key_secrets.matches

        def counted(secret: key_secrets.KeySecret, known: SecretHash) -> bool:
            self.hashes += 1
            return matches(secret, known)

        monkeypatch.setattr(key_secrets, "matches", counted)

    def change(self, **changes: object) -> None:
        self.keys[self.key.id] = replace(self.keys[self.key.id], **changes)  # type: ignore[arg-type]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    return Known(monkeypatch)


async def test_a_key_is_hashed_once(known: Known) -> None:
    text = known.secret.text
    assert known.ring.recognised(text) is None
    first, *others = await asyncio.gather(*(known.ring.verified(text) for _ in range(20)))
    assert (first.name, first.role, first.grants, first.tenant) == (
        f"key:{known.key.id}", Role.DETECT, ("a*",), "north",
    )  # fmt: skip
    assert set(others) == {first}
    assert known.ring.recognised(text) == first
    assert known.hashes == 1


@pytest.mark.parametrize(
    "changes", [{"revoked_unix_s": 9.0}, {"expires_unix_s": 10.0}, {"secrets": ()}]
)
async def test_a_key_that_ended_is_refused_at_once(
    known: Known, changes: dict[str, object]
) -> None:
    await known.ring.verified(known.secret.text)
    known.change(**changes)
    assert known.ring.recognised(known.secret.text) is None
    with pytest.raises(CredentialsInvalid):
        await known.ring.verified(known.secret.text)


async def test_a_key_that_is_gone_is_refused(known: Known) -> None:
    await known.ring.verified(known.secret.text)
    del known.keys[known.key.id]
    with pytest.raises(CredentialsInvalid):
        await known.ring.verified(known.secret.text)


async def test_another_role_holds_at_once(known: Known) -> None:
    await known.ring.verified(known.secret.text)
    known.change(role=Role.OPERATE)
    found = known.ring.recognised(known.secret.text)
    assert found is not None
    assert found.role is Role.OPERATE


@pytest.mark.parametrize("text", ["", "yp_", "yp_0_0", "x" * 100_000, "yp_é_" + "0" * 48])
async def test_what_is_no_key_costs_no_hash(known: Known, text: str) -> None:
    with pytest.raises(CredentialsInvalid):
        await known.ring.verified(text)
    unknown = key_secrets.new_secret("0123456789")
    with pytest.raises(CredentialsInvalid):
        await known.ring.verified(unknown.text)
    assert known.hashes == 0


async def test_a_wrong_secret_is_refused_and_not_remembered(known: Known) -> None:
    wrong = key_secrets.new_secret(known.key.id)
    for _ in range(2):
        with pytest.raises(CredentialsInvalid):
            await known.ring.verified(wrong.text)
    assert known.hashes == 2


async def test_first_uses_are_bounded(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MAX_VERIFYING", 2)
    wrong = [key_secrets.new_secret(known.key.id).text for _ in range(3)]
    outcomes = await asyncio.gather(*map(known.ring.verified, wrong), return_exceptions=True)
    kinds = sorted(type(one).__name__ for one in outcomes)
    assert kinds == ["CredentialsInvalid", "CredentialsInvalid", ResourceExhausted.__name__]


async def test_what_is_remembered_is_bounded(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MAX_KNOWN", 1)
    other = key_secrets.new_secret("abcdef0123")
    known.keys[other.id] = replace(known.key, id=other.id, secrets=(key_secrets.hashed(other),))
    await known.ring.verified(known.secret.text)
    await known.ring.verified(other.text)
    assert known.ring.recognised(known.secret.text) is None
    assert known.ring.recognised(other.text) is not None


async def test_a_caller_who_leaves_does_not_end_the_others_check(known: Known) -> None:
    first = asyncio.create_task(known.ring.verified(known.secret.text))
    second = asyncio.create_task(known.ring.verified(known.secret.text))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).role is Role.DETECT

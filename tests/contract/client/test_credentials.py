"""Keys and tokens of clients: every kind of call shows them, and tokens that expire are renewed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.guarded_rig import Guarded
from tests.contract.oidc_issuer import OidcIssuer
from yolopool.client.access.credentials import Credentials, token_file
from yolopool.client.async_client import AsyncClient
from yolopool.client.client import Client
from yolopool.errors import CredentialsInvalid, CredentialsMissing, InvalidOption, RoleNeeded

PICTURE = b"jpeg"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with Guarded(tmp_path, OidcIssuer(tmp_path / "issuer")) as rig:
        yield rig


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("YOLOPOOL_API_KEY", "YOLOPOOL_TOKEN", "YOLOPOOL_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def calls_of(client: Client) -> dict[str, Any]:
    """A call of each way in which the client sends one."""
    return {
        "one": lambda: client.detect(PICTURE, model="none"),
        "many": lambda: [answer.error for answer in client.detect_many([PICTURE], model="none")],
        "stream of frames": lambda: list(client.detect_stream([PICTURE], model="none")),
        "stream of answers": lambda: list(client.events()),
        "read": client.models,
    }


async def outcome(call: Any) -> object:
    """What a call ends with: an error's type, or an answer."""
    try:
        told = await asyncio.to_thread(call)
    except Exception as error:
        return type(error)
    return type(told[0]) if told and isinstance(told[0], Exception) else told


async def test_every_way_to_call_shows_the_key(rig: Guarded) -> None:
    """What a caller with a key is told is of the model, not of the key."""
    with (
        Client(rig.addresses.grpc) as nobody,
        Client(rig.addresses.grpc, rig.secret("operate")) as keyed,
        Client(rig.addresses.grpc, token=lambda: rig.secret("token of an operator")) as tokened,
    ):
        for way, call in calls_of(nobody).items():
            assert await outcome(call) is CredentialsMissing, way
        for known in (keyed, tokened):
            for way, call in calls_of(known).items():
                assert await outcome(call) not in (CredentialsMissing, CredentialsInvalid), way


async def test_every_way_to_call_of_the_asyncio_client_shows_it(rig: Guarded) -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return rig.secret("token of an operator")

    for given in ({"token": token}, {"api_key": rig.secret("operate")}):
        async with AsyncClient(rig.addresses.grpc, **given) as client:
            assert await client.models() == ()
            assert [event async for event in client.events()]
            frames = client.detect_stream([PICTURE], model="none")
            many = client.detect_many([PICTURE], model="none")
            errors: list[object] = [answer.error async for answer in many]
            try:
                errors += [result.error async for result in frames]
            except Exception as error:
                errors.append(error)
            assert {getattr(error, "reason", "") for error in errors} == {"MODEL_NOT_FOUND"}


async def test_a_token_is_asked_for_at_each_call(rig: Guarded) -> None:
    assert rig.issuer is not None
    given = [rig.secret("token that expired"), rig.secret("token of an operator")]
    async with AsyncClient(rig.addresses.grpc, token=lambda: given[0]) as client:
        with pytest.raises(CredentialsInvalid, match="expired"):
            await client.models()
        given.pop(0)
        assert await client.models() == ()
        given[0] = rig.secret("token without a role")
        with pytest.raises(RoleNeeded, match="groups"):
            await client.models()


async def test_a_file_is_read_again_when_it_changes(
    rig: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(rig.secret("token that expired"))
    monkeypatch.setenv("YOLOPOOL_TOKEN_FILE", str(file))
    async with AsyncClient(rig.addresses.grpc) as client:
        with pytest.raises(CredentialsInvalid):
            await client.models()
        other = tmp_path / "other"
        other.write_text(rig.secret("token of an operator") + "\n")
        other.replace(file)
        assert await client.models() == ()
        file.unlink()
        with pytest.raises(OSError, match="token"):
            await client.models()


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_stream_goes_on_with_the_next_token(rig: Guarded, blocking: bool) -> None:
    """One whose token ends while it is open; the frames that had no result are sent again."""
    issuer = rig.issuer
    assert issuer is not None
    shown: list[str] = []

    def token() -> str:
        # It ends within a second from now, the clocks' difference included.
        shown.append(issuer.token(exp=int(time.time()) - 59, jti=str(len(shown))))
        return shown[-1]

    def frames() -> Any:
        for _ in range(5):
            yield PICTURE
            time.sleep(0.35)

    async def awaited() -> list[Any]:
        async with AsyncClient(rig.addresses.grpc, token=token) as client:

            async def paced() -> AsyncIterator[Any]:
                for _ in range(5):
                    yield PICTURE
                    await asyncio.sleep(0.35)

            return [one async for one in client.detect_stream(paced(), "a", timeout_s=20)]

    def blocked() -> list[Any]:
        with Client(rig.addresses.grpc, token=token) as client:
            return list(client.detect_stream(frames(), "a", timeout_s=20))

    path = rig.settings.data_dir / "a.pt"
    path.write_bytes(b"weights")
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        await admin.register("a", path, wait=False)
    results = await (asyncio.to_thread(blocked) if blocking else awaited())
    assert len(results) == 5
    assert {result.error.reason for result in results} == {"MODEL_NOT_READY"}
    assert len(set(shown)) >= 2


def test_one_caller_a_client_and_no_secret_in_its_words() -> None:
    with pytest.raises(InvalidOption):
        Credentials("yp_0", lambda: "x")
    assert "hush" not in repr(Credentials("hush", None))

    async def token() -> str:
        return "x"

    with pytest.raises(InvalidOption, match="AsyncClient"):
        Credentials(None, token).metadata()


def test_of_several_variables_the_key_counts(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("of-file\n")
    both = {"YOLOPOOL_TOKEN": "t", "YOLOPOOL_TOKEN_FILE": str(tmp_path / "t")}
    for environ, right in (
        ({**both, "YOLOPOOL_API_KEY": "k"}, "Bearer k"),
        (both, "Bearer of-file"),
        ({"YOLOPOOL_TOKEN": "t"}, "Bearer t"),
    ):
        assert dict(Credentials(None, None, environ).metadata())["authorization"] == right
    assert Credentials(None, None, {}).metadata() == ()
    assert token_file(tmp_path / "t")() == "of-file"
    os.utime(tmp_path / "t", ns=(1, 1))
    assert token_file(tmp_path / "t")() == "of-file"

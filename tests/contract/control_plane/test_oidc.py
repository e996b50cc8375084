"""Tokens of a real issuer over TLS: which are taken, which not, and what if it misbehaves."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import OctKey, RSAKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from control_plane.identity.oidc import document, issuer_file, issuer_keys
from control_plane.identity.oidc.issuer_keys import MIN_PAUSE_S, REFRESH_S, IssuerKeys
from control_plane.identity.oidc.tokens import Tokens
from control_plane.types.access.api_key import Role
from tests.contract.control_plane.test_tls import a_fleet
from tests.contract.oidc_issuer import (
    DISCOVERY,
    KEYS,
    Answer,
    OidcIssuer,
    answer,
    new_key,
    signed,
)
from tests.page_blocks import ROOT
from yolopool.errors import CredentialsInvalid, IssuerUnavailable, RoleNeeded

DAY_S = 86_400.0
PAGE = (ROOT / "docs" / "security.md").read_text()


class Pool:
    """What a control plane has of an issuer, on clocks of its own."""

    def __init__(self, issuer: OidcIssuer, folder: Path, *more: str) -> None:
        self.monotonic, self.later_s = 1000.0, 0.0
        read = issuer_file.read(issuer.file(folder / "issuers.toml", *more))
        self.keys = IssuerKeys(read[0], lambda: self.monotonic)
        self.tokens = Tokens([self.keys], lambda: time.time() + self.later_s)

    def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds

    async def settled(self) -> None:
        """Waits for what is read behind the callers' backs."""
        while self.keys._reading is not None:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[OidcIssuer]:
    issuer = OidcIssuer(tmp_path / "authority")
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
def pool(issuer: OidcIssuer, tmp_path: Path) -> Pool:
    return Pool(issuer, tmp_path)


async def test_a_token_is_verified_once_and_then_recognised(issuer: OidcIssuer, pool: Pool) -> None:
    text = issuer.token()
    assert pool.tokens.recognised(text) is None
    found = await pool.tokens.verified(text)
    assert (found.role, found.grants, found.tenant) == (Role.OPERATE, ("*",), "")
    assert found.name == f"token:alice@localhost:{issuer.port}"
    assert pool.tokens.recognised(text) == found
    assert issuer.asked == [DISCOVERY, KEYS]
    pool.later_s = 300 + 61  # its end, and the clocks' difference
    assert pool.tokens.recognised(text) is None


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
)
async def test_every_algorithm_of_public_keys(
    issuer: OidcIssuer, pool: Pool, algorithm: str
) -> None:
    issuer.keys["k"] = new_key(algorithm, "k")
    token = issuer.token("k", algorithm, groups=["admins"])
    assert (await pool.tokens.verified(token)).role is Role.ADMIN


async def test_what_the_file_says_counts_and_the_first_that_fits(
    issuer: OidcIssuer, tmp_path: Path
) -> None:
    pool = Pool(issuer, tmp_path, 'models_claim = "pool.models"', 'tenant_claim = "tenant"')
    token = issuer.token(groups="operators", pool={"models": ["b*", "c"]}, tenant="south")
    found = await pool.tokens.verified(token)
    assert (found.role, found.grants, found.tenant) == (Role.OPERATE, ("b*", "c"), "south")
    own = await pool.tokens.verified(issuer.token(groups=["team-a"], tenant="south"))
    assert (own.role, own.grants, own.tenant) == (Role.DETECT, ("a*",), "north")
    both = await pool.tokens.verified(issuer.token(groups=["team-a", "admins"], tenant="t"))
    assert (both.role, both.grants) == (Role.ADMIN, ())  # no models were named
    for groups in (["strangers"], [], None, {"admins": 1}, [["admins"]], 3):
        with pytest.raises(RoleNeeded):
            await pool.tokens.verified(issuer.token(groups=groups))
    for tenant in (None, "", "A B", 5, ["south"]):
        with pytest.raises(CredentialsInvalid):
            await pool.tokens.verified(issuer.token(tenant=tenant))


# --- tokens that are none -----------------------------------------------------------------------

now = int(time.time())
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "first"}
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "issuer": {"iss": "https://login.example/realms/vision"},
    "issuer with a slash more": {"iss": "SLASH"},
    "no issuer": {"iss": None},
    "audience": {"aud": "another"},
    "audiences": {"aud": ["another", "third"]},
    "audience with more behind it": {"aud": "yolopool2"},
    "no audience": {"aud": None},
    "empty audience": {"aud": []},
    "expired": {"exp": now - 120},
    "no end": {"exp": None},
    "an end that is text": {"exp": str(now + 300)},
    "an end that is no number": {"exp": float("nan")},
    "an end that is infinite": {"exp": float("inf")},
    "not yet": {"nbf": now + 3600},
    "made in the future": {"iat": now + 3600},
    "no subject": {"sub": None},
    "a subject of two lines": {"sub": "a\nb"},
    "a long subject": {"sub": "a" * 300},
}


@pytest.mark.parametrize("what", WRONG_CLAIMS)
async def test_claims_that_are_wrong(issuer: OidcIssuer, pool: Pool, what: str) -> None:
    changes = dict(WRONG_CLAIMS[what])
    if changes.get("iss") == "SLASH":
        changes["iss"] = f"{issuer.url}/"
    with pytest.raises(CredentialsInvalid) as raised:
        await pool.tokens.verified(issuer.token(**changes))
    assert not raised.value.retryable


async def test_clocks_may_differ_a_little(issuer: OidcIssuer, pool: Pool) -> None:
    late, early = issuer.token(exp=int(time.time()) - 30), issuer.token(nbf=int(time.time()) + 30)
    for token in (late, early):
        assert (await pool.tokens.verified(token)).role is Role.OPERATE


def _pem(issuer: OidcIssuer) -> bytes:
    key = issuer.keys["first"]
    assert isinstance(key, RSAKey)
    return key.as_pem(private=False)


FORGED: dict[str, Callable[[OidcIssuer], str]] = {
    "no algorithm": lambda i: signed({**HEADER, "alg": "none"}, i.claims(groups=["admins"]), None),
    "no algorithm, in capitals": lambda i: _recoded(i.token(), alg="NONE"),
    # The public key, which everyone has, as if it were a shared secret.
    "confusion by PEM": lambda i: shared_secret({**HEADER, "alg": "HS256"}, i, _pem(i)),
    "confusion by JWK": lambda i: shared_secret(
        {**HEADER, "alg": "HS256"}, i, json.dumps(i.keys["first"].as_dict(private=False)).encode()
    ),
    "confusion under another name": lambda i: shared_secret({**HEADER, "alg": "RS256"}, i, _pem(i)),
    "another's key under the id": lambda i: signed(HEADER, i.claims(), new_key("RS256", "first")),
    "its own key in the header": lambda i: _with_own_key(i),
    "an id that is not there": lambda i: signed(
        {**HEADER, "kid": "other"}, i.claims(), i.keys["first"]
    ),
    "an id that is a path": lambda i: signed(
        {**HEADER, "kid": "../../etc/passwd"}, i.claims(), i.keys["first"]
    ),
    "an algorithm that the key is not of": lambda i: _recoded(i.token(), alg="ES256"),
    "other claims under the signature": lambda i: _swapped(i.token(), i.claims(sub="mallory")),
    "a cut signature": lambda i: i.token()[:-4],
    "no signature": lambda i: i.token().rpartition(".")[0] + ".",
    "what must be understood": lambda i: signed(
        {**HEADER, "crit": ["b64"], "b64": True}, i.claims(), i.keys["first"]
    ),
    "a logout token": lambda i: signed(
        {**HEADER, "typ": "logout+jwt"}, i.claims(), i.keys["first"]
    ),
    "no object": lambda i: signed(HEADER, ["iss", i.url], i.keys["first"]),
    "a large one": lambda i: i.token(more="x" * 9000),
    "a large header": lambda i: signed({**HEADER, "x": "y" * 3000}, i.claims(), i.keys["first"]),
    "nested": lambda i: f"e30.{'W' * 5000}.e30",
    "dots": lambda i: "..",
    "letters that are none": lambda i: "é.é.é",
    "padded": lambda i: i.token() + "==",
}  # fmt: skip


def shared_secret(header: dict[str, Any], issuer: OidcIssuer, secret: bytes) -> str:
    text = f"{_encoded(header)}.{_encoded(issuer.claims(groups=['admins']))}"
    return f"{text}.{urlsafe_b64encode(hmac.digest(secret, text.encode(), 'sha256')).decode()}"


def _recoded(token: str, **changes: Any) -> str:
    header, rest = token.split(".", 1)
    held = json.loads(urlsafe_b64decode(header.encode()))
    return f"{_encoded({**held, **changes})}.{rest}"


def _swapped(token: str, claims: dict[str, Any]) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{_encoded(claims)}.{signature}"


def _with_own_key(issuer: OidcIssuer) -> str:
    own = new_key("RS256", "first")
    header = {**HEADER, "jwk": own.as_dict(private=False), "jku": "https://127.0.0.1:1/keys"}
    return signed(header, issuer.claims(groups=["admins"]), own)


def _encoded(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize("what", FORGED)
async def test_forged_tokens(issuer: OidcIssuer, pool: Pool, what: str) -> None:
    await pool.tokens.verified(issuer.token())  # so that the keys are there
    token = FORGED[what](issuer)
    for _ in range(2):
        with pytest.raises(CredentialsInvalid):
            await pool.tokens.verified(token)
        assert pool.tokens.recognised(token) is None
    assert len(issuer.asked) <= 2  # none of them makes the issuer be asked again so soon


async def test_only_the_named_clients(issuer: OidcIssuer, tmp_path: Path) -> None:
    pool = Pool(issuer, tmp_path, 'clients = ["gateway"]')
    for right in ({"azp": "gateway"}, {"client_id": "gateway"}):
        assert await pool.tokens.verified(issuer.token(**right))
    for wrong in ({}, {"azp": "other"}, {"azp": "other", "client_id": "gateway"}, {"azp": ["g"]}):
        with pytest.raises(CredentialsInvalid):
            await pool.tokens.verified(issuer.token(**wrong))


async def test_keys_that_may_not_be_used_are_not(issuer: OidcIssuer, pool: Pool) -> None:
    """A secret one, one for encryption, a weak one, one for another algorithm."""
    weak = RSAKey(rsa.generate_private_key(65537, 1024), None, {"kid": "weak"})
    issuer.keys |= {
        "shared": OctKey.import_key("x" * 64, {"kid": "shared"}),
        "encrypts": RSAKey.generate_key(2048, {"kid": "encrypts", "use": "enc"}),
        "weak": weak,
        "other": RSAKey.generate_key(2048, {"kid": "other", "alg": "PS256"}),
    }
    await pool.tokens.verified(issuer.token())
    header = {**HEADER, "kid": "shared", "alg": "HS256"}
    tokens = [signed(header, issuer.claims(), issuer.keys["shared"])]
    free = RSAKey.import_key({**issuer.keys["encrypts"].as_dict(private=True), "use": "sig"})
    tokens.append(signed({**HEADER, "kid": "encrypts"}, issuer.claims(), free))
    tokens.append(signed({**HEADER, "kid": "weak"}, issuer.claims(), weak))
    plain = {k: v for k, v in issuer.keys["other"].as_dict(private=True).items() if k != "alg"}
    tokens.append(signed({**HEADER, "kid": "other"}, issuer.claims(), RSAKey.import_key(plain)))
    for token in tokens:
        with pytest.raises(CredentialsInvalid):
            await pool.tokens.verified(token)
    assert await pool.tokens.verified(issuer.token("other", "PS256"))


# --- rotation -----------------------------------------------------------------------------------


async def test_a_new_key_is_read_once_when_it_is_first_seen(issuer: OidcIssuer, pool: Pool) -> None:
    await pool.tokens.verified(issuer.token())
    issuer.keys["second"] = new_key("ES256", "second")
    pool.pass_time(MIN_PAUSE_S + 1)
    texts = [issuer.token("second", "ES256", jti=str(number)) for number in range(20)]
    found = await asyncio.gather(*map(pool.tokens.verified, texts))
    assert {one.role for one in found} == {Role.OPERATE}
    assert issuer.asked == [DISCOVERY, KEYS] * 2


async def test_unknown_keys_ask_the_issuer_once_in_a_while(issuer: OidcIssuer, pool: Pool) -> None:
    await pool.tokens.verified(issuer.token())
    pool.pass_time(MIN_PAUSE_S + 1)
    unknown = [
        signed({**HEADER, "kid": f"k{number}"}, issuer.claims(), issuer.keys["first"])
        for number in range(50)
    ]
    outcomes = await asyncio.gather(*map(pool.tokens.verified, unknown), return_exceptions=True)
    assert {type(one) for one in outcomes} == {CredentialsInvalid}
    assert issuer.asked == [DISCOVERY, KEYS] * 2


async def test_a_key_that_was_withdrawn_ends_its_tokens(issuer: OidcIssuer, pool: Pool) -> None:
    text = issuer.token()
    await pool.tokens.verified(text)
    issuer.keys = {"second": new_key("RS256", "second")}
    pool.pass_time(REFRESH_S + 1)
    assert pool.tokens.recognised(text) is not None  # which has the keys read again
    await pool.settled()
    assert pool.tokens.recognised(text) is None
    with pytest.raises(CredentialsInvalid):
        await pool.tokens.verified(text)


async def test_without_its_issuer_a_pool_goes_on_for_the_stated_time(
    issuer: OidcIssuer, pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    text = issuer.token()
    await pool.tokens.verified(text)
    await issuer.stop()
    other = issuer.token(sub="bob", exp=int(time.time()) + 3 * 86400)
    for _ in range(30):
        pool.pass_time(DAY_S / 31)
        assert pool.tokens.recognised(text) is not None
        assert (await pool.tokens.verified(other)).name.startswith("token:bob@")
        await pool.settled()
    pool.pass_time(DAY_S / 31 + 1)
    assert pool.tokens.recognised(text) is None
    with pytest.raises(IssuerUnavailable) as raised:
        await pool.tokens.verified(other)
    assert raised.value.retryable
    assert "".join(capfd.readouterr()).count("can't be read") == 1
    await issuer.start()
    pool.pass_time(MIN_PAUSE_S + 1)
    assert (await pool.tokens.verified(other)).role is Role.OPERATE


# --- an issuer that misbehaves ------------------------------------------------------------------


async def _never(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def _drips(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no single read is late."""
    for byte in answer(b" " * 1000):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def _endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(f"x-{number}: {'y' * 100}\r\n".encode())
        await writer.drain()


async def _endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    for _ in range(10_000):
        writer.write(b" " * 65_536)
        await writer.drain()


def says(*parts: bytes) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)

    return write


def _moved(to: str) -> Answer:
    return says(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())


def keys_from(url: str, issuer: str = "URL") -> Callable[[OidcIssuer], Answer]:
    return lambda i: says(
        answer(json.dumps({"issuer": issuer.replace("URL", i.url), "jwks_uri": url}).encode())
    )


MISDEEDS: dict[str, tuple[str, Any]] = {
    "does not answer": (DISCOVERY, _never),
    "answers in drips": (KEYS, _drips),
    "header without end": (DISCOVERY, _endless_header),
    "body without end": (KEYS, _endless_body),
    "huge": (KEYS, says(answer(b'{"keys": ["' + b"x" * 300_000 + b'"]}'))),
    "a large length": (KEYS, says(answer(b"").replace(b"Length: 0", b"Length: 99999999999"))),
    "a page": (DISCOVERY, says(answer(b"<html>", "text/html"))),
    "JSON that says it is a page": (KEYS, says(answer(b'{"keys": []}', "text/html"))),
    "an error": (DISCOVERY, says(answer(b"{}", status="500 Oops"))),
    "moved": (DISCOVERY, _moved("https://localhost:1/")),
    "moved to a file": (KEYS, _moved("file:///etc/passwd")),
    "no JSON": (KEYS, says(answer(b"keys"))),
    "nested too deep": (KEYS, says(answer(b"[" * 100_000))),
    "a list": (KEYS, says(answer(b"[]"))),
    "no keys": (KEYS, says(answer(b'{"keys": []}'))),
    "keys that are none": (KEYS, says(answer(b'{"keys": [1, {}, {"kty": "RSA"}, null]}'))),
    "too many keys": (KEYS, says(answer(b'{"keys": [' + b"{}," * 100 + b"{}]}"))),
    "compressed": (
        KEYS,
        says(answer(b"\x1f\x8b").replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")),
    ),
    "cut off": (KEYS, says(answer(b'{"keys": []}')[:-3])),
    "no HTTP": (DISCOVERY, says(b"SSH-2.0-x\r\n\r\n")),
    "another issuer": (DISCOVERY, keys_from("URL/keys", "https://login.example")),
    "keys in the clear": (DISCOVERY, keys_from("http://login.example/keys")),
    "keys in a file": (DISCOVERY, keys_from("file:///etc/passwd")),
    "keys of nobody": (DISCOVERY, keys_from("")),
}


@pytest.mark.matrix(sample=8)
@pytest.mark.parametrize("what", MISDEEDS)
async def test_what_is_no_document_gives_no_keys_and_keeps_the_old_ones(
    issuer: OidcIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(document, "LIMIT_S", 0.5)
    path, deed = MISDEEDS[what]
    misbehave = deed(issuer) if what.startswith(("another", "keys in", "keys of")) else deed
    fresh, known = Pool(issuer, tmp_path), Pool(issuer, tmp_path)
    text = issuer.token()
    await known.tokens.verified(text)
    issuer.answers[path] = misbehave
    with pytest.raises(IssuerUnavailable):
        await fresh.tokens.verified(text)
    known.pass_time(REFRESH_S + 1)
    assert known.tokens.recognised(text) is not None
    await known.settled()
    assert known.tokens.recognised(text) is not None


async def test_an_issuer_elsewhere_asks_for_nothing_on_loopback_in_the_clear(
    issuer: OidcIssuer, pool: Pool
) -> None:
    """It would have a control plane call what listens on its own host."""
    called: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(await reader.read(100))
        found = {"keys": [key.as_dict(private=False) for key in issuer.keys.values()]}
        writer.write(answer(json.dumps(found).encode()))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        issuer.answers[DISCOVERY] = keys_from(f"http://127.0.0.1:{port}/keys")(issuer)
        with pytest.raises(IssuerUnavailable):
            await pool.tokens.verified(issuer.token())
        assert called == []


async def test_the_issuers_certificate_is_checked(tmp_path: Path) -> None:
    for name, ca_of in (("localhost", "other"), ("login.example", "own")):
        issuer = OidcIssuer(tmp_path / name, name)
        await issuer.start()
        if ca_of == "other":
            issuer.ca = a_fleet(tmp_path / "other").folder / "ca.pem"
        pool = Pool(issuer, tmp_path)
        with pytest.raises(IssuerUnavailable):
            await pool.tokens.verified(issuer.token())
        assert issuer.asked == []
        await issuer.stop()


async def test_a_caller_who_leaves_does_not_end_what_others_wait_for(
    issuer: OidcIssuer, pool: Pool
) -> None:
    first = asyncio.create_task(pool.tokens.verified(issuer.token()))
    second = asyncio.create_task(pool.tokens.verified(issuer.token(sub="bob")))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).role is Role.OPERATE
    assert issuer.asked == [DISCOVERY, KEYS]


async def test_what_is_remembered_is_bounded(
    issuer: OidcIssuer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.identity.oidc.tokens.MAX_KNOWN", 2)
    texts = [issuer.token(jti=str(number)) for number in range(3)]
    for text in texts:
        await pool.tokens.verified(text)
    assert [pool.tokens.recognised(text) is None for text in texts] == [True, False, False]


WRONG_FILES = {
    "empty": "",
    "no TOML": "issuer = [",
    "an unknown word": 'url = "https://a"\naudience = "b"\nrolls = 1',
    "no grant": 'url = "https://a"\naudience = "b"',
    "in the clear": 'url = "http://login.example"\naudience = "b"\nGRANT',
    "a password in the address": 'url = "https://u:p@login.example"\naudience = "b"\nGRANT',
    "a query": 'url = "https://login.example/?x"\naudience = "b"\nGRANT',
    "a port that is none": 'url = "https://login.example:99999"\naudience = "b"\nGRANT',
    "no audience": 'url = "https://a"\naudience = ""\nGRANT',
    "a role of the pool itself": 'url = "https://a"\naudience = "b"\nGRANT control-plane',
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, what: str) -> None:
    grant = '[[issuer.grant]]\nwhen = "x"\nrole = "detect"'
    text = WRONG_FILES[what].replace(
        "GRANT control-plane", grant.replace("detect", "control-plane")
    )
    head = "" if what in ("empty", "no TOML") else "[[issuer]]\n"
    path = tmp_path / "issuers.toml"
    path.write_text(head + text.replace("GRANT", grant))
    with pytest.raises(ValueError, match=r"issuers\.toml"):
        issuer_file.read(path)


def test_the_keys_of_no_issuer_are_read_where_everyone_could_change_them() -> None:
    issuer_file.check_url("http://127.0.0.1:8080/realms/a")
    for url in ("http://login.example", "ftp://login.example", "https://", "//x", "https://a/#b"):
        with pytest.raises(ValueError):
            issuer_file.check_url(url)
    assert not {"none", "HS256", "HS384", "HS512"} & set(issuer_keys.ALGORITHMS)


async def test_the_file_of_the_page(issuer: OidcIssuer, tmp_path: Path) -> None:
    """docs/security.md, with this issuer in place of the example's."""
    text = PAGE.partition("```toml\n")[2].partition("```")[0]
    assert "https://login.example/realms/vision" in text
    ours = f'url = "{issuer.url}"\nca = "{issuer.ca}" #'
    path = tmp_path / "issuers.toml"
    path.write_text(text.replace('url = "https://login.example/realms/vision" ', ours))
    tokens = Tokens([IssuerKeys(one, time.monotonic) for one in issuer_file.read(path)], time.time)
    given: dict[str, Any] = {
        "azp": "camera-gateway",
        "realm_access": {"roles": ["offline", "team-a"]},
    }
    found = await tokens.verified(issuer.token(**given))
    assert (found.role, found.grants, found.tenant) == (Role.DETECT, ("team-a/*",), "team-a")
    given["realm_access"] = {"roles": ["team-a", "vision-admins"]}
    assert (await tokens.verified(issuer.token(**given))).role is Role.ADMIN
    with pytest.raises(CredentialsInvalid, match="azp"):
        await tokens.verified(issuer.token(**{**given, "azp": "other"}))

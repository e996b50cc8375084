"""A real issuer of OpenID Connect on loopback: it signs tokens, rotates keys, and misbehaves."""

import asyncio
import json
import socket
import ssl
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeyParameters, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from yolopool.tls import authority

Key = RSAKey | ECKey | OKPKey | OctKey
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"
AUDIENCE = "yolopool"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def new_key(algorithm: str, kid: str) -> Key:
    told: KeyParameters = {"kid": kid, "use": "sig"}
    if algorithm in ("EdDSA", "Ed25519"):
        return OKPKey.generate_key("Ed25519", told)
    if algorithm.startswith("ES"):
        return ECKey.generate_key(
            {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm], told
        )
    return RSAKey.generate_key(2048, told)


# One that is never withdrawn for what another test does.
FIRST = new_key("RS256", "first")


def signed(header: Mapping[str, Any], claims: Any, key: Key | None) -> str:
    """A token as whoever makes it wants it to be, with any algorithm at all."""
    registry = JWSRegistry(algorithms=list(JWSRegistry.algorithms), strict_check_header=False)
    registry.max_header_length = 10**6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(dict(header), json.dumps(claims), key, registry=registry)


class OidcIssuer:
    """`start`, then `stop`. `keys` are published; `answers` replace what a path gives."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        self.ca = folder / "ca.pem"
        authority.create(folder, time.time())
        authority.issue(folder, "issuer", "client", [name], 1.0, time.time())
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "issuer.pem", folder / "issuer.key")
        self._server: asyncio.Server | None = None
        self.keys: dict[str, Key] = {"first": FIRST}
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        # Bound before it serves, since its address is in the file.
        self._socket: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/realms/vision"

    async def start(self) -> None:
        """On the port of before, if there is one."""
        bound = self._socket or socket.create_server(("127.0.0.1", self.port))
        self._socket = None
        self._server = await asyncio.start_server(self._serve, sock=bound, ssl=self._context)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a caller who is an operator; None removes one."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": [AUDIENCE, "other"], "sub": "alice", "iat": now,
            "nbf": now, "exp": now + 300, "groups": ["staff", "operators"],
        }  # fmt: skip
        return {name: one for name, one in {**claims, **changes}.items() if one is not None}

    def token(self, kid: str = "first", algorithm: str = "RS256", **changes: Any) -> str:
        header = {"alg": algorithm, "typ": "JWT", "kid": kid}
        return signed(header, self.claims(**changes), self.keys[kid])

    def file(self, path: Path, *more: str) -> Path:
        """The file of issuers that trusts this one; `more`: lines of its table."""
        lines = (
            "[[issuer]]", f'url = "{self.url}"', f'audience = "{AUDIENCE}"',
            f'ca = "{self.ca}"', 'role_claim = "groups"', *more,
            "[[issuer.grant]]", 'when = "admins"', 'role = "admin"',
            "[[issuer.grant]]", 'when = "operators"', 'role = "operate"',
            "[[issuer.grant]]", 'when = "team-a"', 'role = "detect"', 'models = ["a*"]',
            'tenant = "north"',
        )  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
        return path

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode().removeprefix("/realms/vision")
            self.asked.append(path)
            await self.answers.get(path, self._document)(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort() if path in self.answers else writer.close()

    async def _document(self, writer: asyncio.StreamWriter) -> None:
        found: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"}
        if self.asked[-1] == KEYS:
            found = {
                "keys": [key.as_dict(private=isinstance(key, OctKey)) for key in self.keys.values()]
            }
        writer.write(answer(json.dumps(found).encode()))


def answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + body

"""A control plane that asks who calls, and a key of each kind of caller."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from joserfc.jwk import OctKey

from control_plane.identity import key_secrets
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.access.api_key import ApiKey, Joining, Role
from tests.contract.control_plane_rig import Rig
from tests.contract.oidc_issuer import OidcIssuer, new_key, signed
from yolopool.status import error_from_rpc
from yolopool.transport import bearer
from yolopool.v1 import importing_pb2_grpc

NOW = 1000.0


def issued(
    role: Role, grants: tuple[str, ...] = ("*",), **changes: Any
) -> tuple[ApiKey, key_secrets.KeySecret]:
    secret = key_secrets.new_secret()
    key = ApiKey(secret.id, "", "", role, grants, (key_secrets.hashed(secret),), NOW)
    return replace(key, **changes), secret


def role_of(kind: str) -> Role:
    """The role of a caller whose key or token is valid, and has one."""
    if kind in TOKEN_ROLES:
        return TOKEN_ROLES[kind]
    return Role.OPERATE if kind in LIMITED else Role(kind)


def tokens_of(issuer: OidcIssuer) -> dict[str, str]:
    """A token of each kind; those that are wrong are an admin's but for that."""
    admin = issuer.claims(groups=["admins"])
    header = {"alg": "RS256", "typ": "JWT", "kid": "first"}
    secret = OctKey.generate_key(256)
    return {
        "token of an operator": issuer.token(),
        "token of team a": issuer.token(groups=["team-a"]),
        NO_ROLE: issuer.token(groups=["strangers"]),
        "token of another issuer": issuer.token(groups=["admins"], iss="https://login.example"),
        "token for another audience": issuer.token(groups=["admins"], aud="another"),
        "token that expired": issuer.token(groups=["admins"], exp=int(time.time()) - 120),
        "token that is forged": signed(header, admin, new_key("RS256", "first")),
        "token without algorithm": signed({**header, "alg": "none"}, admin, None),
        "token with HS256": signed({**header, "alg": "HS256"}, admin, secret),
    }


class _Keyed(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, secret: str) -> None:
        self._metadata = grpc.aio.Metadata(*bearer(secret))

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details._replace(metadata=self._metadata), request)


# Of the kinds of callers, those whose key or token is none, and the role of the others' tokens.
REFUSED = frozenset({
    "wrong", "revoked", "expired", "token of another issuer", "token for another audience",
    "token that expired", "token that is forged", "token without algorithm", "token with HS256",
})  # fmt: skip
TOKEN_ROLES = {"token of an operator": Role.OPERATE, "token of team a": Role.DETECT}
NO_ROLE = "token without a role"
# Those who may use b* alone.
LIMITED_TO_B = frozenset({"not granted", "another tenant"})
LIMITED = LIMITED_TO_B | {"granted", "token of team a"}


class Guarded(Rig):
    """A control plane that asks who calls, with a key of each kind, and with an `issuer` a token of
    each kind; the stubs use the admin's.
    """

    def __init__(self, folder: Path, issuer: OidcIssuer | None = None, **changes: Any) -> None:
        self.issuer = issuer
        if issuer is not None:
            changes["oidc"] = issuer.file(folder / "issuers.toml")
        super().__init__(folder, MemoryRegistry(), auth="keys", **changes)
        self.texts: dict[str, str] = {}
        self.kinds = {
            "detect": issued(Role.DETECT),
            "operate": issued(Role.OPERATE),
            "admin": issued(Role.ADMIN),
            "worker": issued(Role.WORKER),
            "control-plane": issued(Role.CONTROL_PLANE),
            "join": issued(Role.JOIN, (), joins=Joining(Role.WORKER)),
            "granted": issued(Role.OPERATE, ("a*",)),
            "not granted": issued(Role.OPERATE, ("b*",)),
            "another tenant": issued(Role.OPERATE, ("b*",), tenant="south"),
            "revoked": issued(Role.ADMIN, revoked_unix_s=1.0),
            "expired": issued(Role.ADMIN, expires_unix_s=1.0),
        }

    async def __aenter__(self) -> "Guarded":
        self.texts = {
            **{kind: secret.text for kind, (_, secret) in self.kinds.items()},
            "wrong": key_secrets.new_secret("00000000aa").text,
        }
        if self.issuer is not None:
            await self.issuer.start()
            self.texts |= tokens_of(self.issuer)
        await self.registry.create()
        for key, _ in self.kinds.values():
            await self.registry.put_api_key(key)
        await super().__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if self.issuer is not None:
            await self.issuer.stop()

    async def import_all(self, count: int) -> None:
        """Does so many imports as an importer that has a key would."""
        keyed = [_Keyed(self.secret("worker"))]
        async with grpc.aio.insecure_channel(self.addresses.grpc, interceptors=keyed) as channel:
            self.importing = importing_pb2_grpc.ImportServiceStub(channel)
            for _ in range(count):
                await self.import_next()

    def secret(self, kind: str) -> str:
        """What a caller of this kind sends; of nobody, nothing."""
        return self.texts.get(kind, "")

    async def call(self, method: str, request: Any, kind: str, timeout: float = 5) -> Any:
        """The reply, or the first of a stream. Raises the typed error."""
        _, service, name = method.split("/")
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        reply = message_factory.GetMessageClass(described.output_type)
        metadata = bearer(self.secret(kind))
        async with grpc.aio.insecure_channel(self.addresses.grpc) as channel:
            ways = {
                (False, False): channel.unary_unary, (True, False): channel.stream_unary,
                (False, True): channel.unary_stream, (True, True): channel.stream_stream,
            }  # fmt: skip
            way: Any = ways[described.client_streaming, described.server_streaming]
            send = way(
                method, request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=reply.FromString,
            )  # fmt: skip
            sent = iter([request]) if described.client_streaming else request
            called = send(sent, timeout=timeout, metadata=metadata)
            try:
                if described.server_streaming:
                    return await called.read()
                return await called
            except grpc.RpcError as error:
                raise error_from_rpc(error) from None

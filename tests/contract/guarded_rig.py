"""A control plane that asks who calls, and a key of each kind of caller."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory

from control_plane.identity import key_secrets
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.access.api_key import ApiKey, Role
from tests.contract.control_plane_rig import Rig
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


class _Keyed(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, secret: str) -> None:
        self._metadata = grpc.aio.Metadata(*bearer(secret))

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details._replace(metadata=self._metadata), request)


class Guarded(Rig):
    """A control plane that asks who calls, with a key of each kind; the stubs use the admin's."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(folder, MemoryRegistry(), auth="keys", **changes)
        self.kinds = {
            "detect": issued(Role.DETECT),
            "operate": issued(Role.OPERATE),
            "admin": issued(Role.ADMIN),
            "worker": issued(Role.WORKER),
            "control-plane": issued(Role.CONTROL_PLANE),
            "granted": issued(Role.OPERATE, ("a*",)),
            "not granted": issued(Role.OPERATE, ("b*",)),
            "revoked": issued(Role.ADMIN, revoked_unix_s=1.0),
            "expired": issued(Role.ADMIN, expires_unix_s=1.0),
        }

    async def __aenter__(self) -> "Guarded":
        await self.registry.create()
        for key, _ in self.kinds.values():
            await self.registry.put_api_key(key)
        await super().__aenter__()
        return self

    async def import_all(self, count: int) -> None:
        """Does so many imports as an importer that has a key would."""
        keyed = [_Keyed(self.secret("worker"))]
        async with grpc.aio.insecure_channel(self.addresses.grpc, interceptors=keyed) as channel:
            self.importing = importing_pb2_grpc.ImportServiceStub(channel)
            for _ in range(count):
                await self.import_next()

    def secret(self, kind: str) -> str:
        return self.kinds[kind][1].text if kind in self.kinds else ""

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

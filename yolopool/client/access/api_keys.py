"""API keys: their records for callers, and the calls about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.errors import InvalidOption
from yolopool.v1 import keys_pb2

RoleName = Literal["detect", "operate", "admin", "worker", "control-plane"]
_ROLES: dict[str, keys_pb2.Role.ValueType] = {
    "detect": keys_pb2.ROLE_DETECT,
    "operate": keys_pb2.ROLE_OPERATE,
    "admin": keys_pb2.ROLE_ADMIN,
    "worker": keys_pb2.ROLE_WORKER,
    "control-plane": keys_pb2.ROLE_CONTROL_PLANE,
}
_NAMES: dict[int, str] = {number: name for name, number in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; times in Unix seconds, 0: none. `models` are patterns of names."""

    id: str
    label: str
    tenant: str
    role: str
    models: tuple[str, ...]
    created_unix_s: float
    expires_unix_s: float
    revoked_unix_s: float


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key with its secret, which can't be read again. Its repr does not tell it."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.key!r})"


def create_key(
    role: RoleName,
    *,
    models: Sequence[str] = (),
    label: str = "",
    tenant: str = "",
    lifetime_s: float = 0.0,
) -> Call[IssuedKey]:
    """Makes an API key. `models`: patterns of the names it may use, such as team-a/*; none: all.
    `lifetime_s`: seconds until it expires; 0: never. Its `secret` is what callers give as api_key.
    """
    request = keys_pb2.CreateKeyRequest(
        label=label, tenant=tenant, role=_role(role), models=models, lifetime_s=lifetime_s
    )
    return Call("keys", "CreateKey", request, CHANGE_TIMEOUT_S, _issued)


def list_keys() -> Call[tuple[ApiKey, ...]]:
    """All API keys, newest first, without their secrets."""
    request = keys_pb2.ListKeysRequest()
    return Call(
        "keys", "ListKeys", request, READ_TIMEOUT_S, lambda reply: tuple(map(_key, reply.keys))
    )


def rotate_key(id: str, *, overlap_s: float = 0.0) -> Call[IssuedKey]:
    """Gives a key another secret; the former one is valid for `overlap_s` seconds more."""
    request = keys_pb2.RotateKeyRequest(id=id, overlap_s=overlap_s)
    return Call("keys", "RotateKey", request, CHANGE_TIMEOUT_S, _issued)


def revoke_key(id: str) -> Call[ApiKey]:
    """Ends a key."""
    request = keys_pb2.RevokeKeyRequest(id=id)
    return Call("keys", "RevokeKey", request, CHANGE_TIMEOUT_S, lambda reply: _key(reply.key))


def _role(name: str) -> keys_pb2.Role.ValueType:
    if name not in _ROLES:
        raise InvalidOption(f"role is {name!r}: give one of {', '.join(_ROLES)}")
    return _ROLES[name]


def _issued(reply: keys_pb2.CreateKeyResponse | keys_pb2.RotateKeyResponse) -> IssuedKey:
    return IssuedKey(_key(reply.key), reply.secret)


def _key(key: keys_pb2.ApiKey) -> ApiKey:
    return ApiKey(
        key.id,
        key.label,
        key.tenant,
        _NAMES.get(key.role, "unknown"),
        tuple(key.models),
        key.created_unix_s,
        key.expires_unix_s,
        key.revoked_unix_s,
    )

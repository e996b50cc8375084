"""API keys: proto to types and back. A secret is never part of either."""

from control_plane.types.access.api_key import ApiKey, Role
from yolopool.errors import InvalidOption
from yolopool.v1 import keys_pb2

_ROLES = {
    keys_pb2.ROLE_DETECT: Role.DETECT,
    keys_pb2.ROLE_OPERATE: Role.OPERATE,
    keys_pb2.ROLE_ADMIN: Role.ADMIN,
    keys_pb2.ROLE_WORKER: Role.WORKER,
    keys_pb2.ROLE_CONTROL_PLANE: Role.CONTROL_PLANE,
}
_WORDS = {role: word for word, role in _ROLES.items()}


def role_in(word: int) -> Role:
    """Raises InvalidOption."""
    for known, role in _ROLES.items():
        if known == word:
            return role
    raise InvalidOption("role is not set: give detect, operate, admin, worker or control-plane")


def key_out(key: ApiKey) -> keys_pb2.ApiKey:
    return keys_pb2.ApiKey(
        id=key.id,
        label=key.label,
        tenant=key.tenant,
        role=_WORDS.get(key.role, keys_pb2.ROLE_UNSPECIFIED),  # a newer release may know more
        models=key.grants,
        created_unix_s=key.created_unix_s,
        expires_unix_s=key.expires_unix_s,
        revoked_unix_s=key.revoked_unix_s,
    )

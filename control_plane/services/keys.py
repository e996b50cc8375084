"""KeyService: makes, lists, rotates and revokes API keys."""

import asyncio
import math

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.api_keys import key_out, role_in
from control_plane.identity import key_secrets
from control_plane.store.registry import DesiredState
from control_plane.types.access.api_key import ApiKey, SecretHash, checked_grants
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import FailedPrecondition, InvalidOption, KeyNotFound
from yolopool.masking import masked
from yolopool.names import check_name
from yolopool.server.clock import Clock
from yolopool.v1 import keys_pb2, keys_pb2_grpc

log = structlog.get_logger()

MAX_LABEL_CHARS = 120
MAX_LIFETIME_S, MAX_OVERLAP_S = 10 * 365 * 86_400.0, 30 * 86_400.0
# Ended keys are still listed, and in the registry, for so long.
ENDED_KEPT_S = 30 * 86_400.0
MAX_KEYS = 10_000


class KeyService(keys_pb2_grpc.KeyServiceServicer):
    def __init__(self, registry: DesiredState, view: View, refresh: Refresh, clock: Clock) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock

    async def CreateKey(
        self, request: keys_pb2.CreateKeyRequest, context: CallContext
    ) -> keys_pb2.CreateKeyResponse:
        now = self._clock.unix()
        if await self._forget_ended(now) >= MAX_KEYS:
            raise InvalidOption(f"there are {MAX_KEYS} keys: revoke those that nobody uses")
        secret = key_secrets.new_secret()
        key = ApiKey(
            id=secret.id,
            label=_label(request.label),
            tenant=check_name(request.tenant) if request.tenant else "",
            role=role_in(request.role),
            grants=checked_grants(request.models),
            secrets=(await _hashed(secret),),
            created_unix_s=now,
            expires_unix_s=_ends(now, request.lifetime_s),
        )
        await self._registry.put_api_key(key)
        await self._refresh()
        log.info("key made", key=key.id, role=key.role, by=principal_of(context).name)
        return keys_pb2.CreateKeyResponse(key=key_out(key), secret=secret.text)

    async def ListKeys(
        self, request: keys_pb2.ListKeysRequest, context: CallContext
    ) -> keys_pb2.ListKeysResponse:
        keys = self._own()
        newest_first = sorted(keys, key=lambda key: (-key.created_unix_s, key.id))
        return keys_pb2.ListKeysResponse(keys=[key_out(key) for key in newest_first])

    async def RotateKey(
        self, request: keys_pb2.RotateKeyRequest, context: CallContext
    ) -> keys_pb2.RotateKeyResponse:
        # Written so that NaN is rejected too.
        if not 0.0 <= request.overlap_s <= MAX_OVERLAP_S:
            raise InvalidOption(f"overlap_s is {request.overlap_s:g}: give 0 to {MAX_OVERLAP_S:g}")
        key, now = self._key(request.id), self._clock.unix()
        if not key.is_valid(now):
            raise FailedPrecondition(f"key {key.id} was revoked or has expired: make another")
        secret = key_secrets.new_secret(key.id)
        hashed = await _hashed(secret)
        rotated = await self._registry.change_api_key(
            key.id, lambda held: held.rotated(hashed, now, request.overlap_s)
        )
        await self._refresh()
        if rotated is None:
            raise _unknown(request.id)
        log.info("key rotated", key=key.id, by=principal_of(context).name)
        return keys_pb2.RotateKeyResponse(key=key_out(rotated), secret=secret.text)

    async def RevokeKey(
        self, request: keys_pb2.RevokeKeyRequest, context: CallContext
    ) -> keys_pb2.RevokeKeyResponse:
        key, now = self._key(request.id), self._clock.unix()
        self._check_not_last(key, now)
        revoked = await self._registry.change_api_key(key.id, lambda held: held.revoked(now))
        await self._refresh()
        if revoked is None:
            raise _unknown(request.id)
        log.info("key revoked", key=key.id, by=principal_of(context).name)
        return keys_pb2.RevokeKeyResponse(key=key_out(revoked))

    def _check_not_last(self, key: ApiKey, now: float) -> None:
        """Raises FailedPrecondition for the only key that can make others."""
        keys = self._view.desired.api_keys.values()
        if [held.id for held in keys if held.makes_keys(now)] == [key.id]:
            raise FailedPrecondition(
                f"key {key.id} is the last of an admin: make another one, and revoke it with that"
            )

    def _own(self) -> list[ApiKey]:
        """All but join tokens, which are the other service's."""
        return [key for key in self._view.desired.api_keys.values() if key.joins is None]

    async def _forget_ended(self, now: float) -> int:
        """Removes keys that ended long ago. Returns how many are left."""
        keys = self._own()
        ended = [key for key in keys if key.ends_unix_s + ENDED_KEPT_S < now]
        for key in ended:
            await self._registry.drop_api_key(key.id)
        return len(keys) - len(ended)

    def _key(self, id_: str) -> ApiKey:
        key = self._view.desired.api_keys.get(id_)
        if key is None or key.joins is not None:
            raise _unknown(id_)
        return key


async def _hashed(secret: key_secrets.KeySecret) -> SecretHash:
    return await asyncio.to_thread(key_secrets.hashed, secret)


def _unknown(id_: str) -> KeyNotFound:
    return KeyNotFound(f"there is no key {masked(id_)[:40]!r}: list the keys to see their ids")


def _label(label: str) -> str:
    if len(label) > MAX_LABEL_CHARS or not label.isprintable():
        raise InvalidOption(f"label: at most {MAX_LABEL_CHARS} printable characters")
    return label


def _ends(now: float, lifetime_s: float) -> float:
    if not (math.isfinite(lifetime_s) and 0.0 <= lifetime_s <= MAX_LIFETIME_S):
        raise InvalidOption(
            f"lifetime_s is {lifetime_s:g}: give 0 (no end) to {MAX_LIFETIME_S:g} seconds"
        )
    return now + lifetime_s if lifetime_s else 0.0

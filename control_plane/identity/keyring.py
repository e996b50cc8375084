"""Finds the caller that a key belongs to: on the hot path from memory, else by its hash.

No store: keys are desired state, which every control plane follows.
"""

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from control_plane.caller import Principal
from control_plane.identity import key_secrets
from control_plane.types.access.api_key import ApiKey, SecretHash
from yolopool.errors import CredentialsInvalid, ResourceExhausted

MAX_KNOWN = 10_000  # keys that were verified and are recognised without a hash
MAX_VERIFYING = 64  # first uses at a time; each takes about 10 ms of one thread
INVALID = "the API key is not known, was revoked or has expired: ask an admin for another"

_OF_PROCESS = os.urandom(32)


class _Known(NamedTuple):
    """A key that was verified, by which of its hashes, and whose it is."""

    key: ApiKey
    secret: SecretHash
    principal: Principal


class Keyring:
    """`keys` are those of desired state by id; `now`: Unix seconds."""

    def __init__(self, keys: Callable[[], Mapping[str, ApiKey]], now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._verifying: dict[bytes, asyncio.Task[SecretHash | None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")

    def recognised(self, text: str) -> Principal | None:
        """The caller of a key that was verified before and is valid now; None: verify it."""
        proof = _proof(text)
        known = self._known.get(proof)
        if known is None:
            return None
        key = self._keys().get(known.key.id)
        if key is not None and key is not known.key:  # it was read again, and may say otherwise
            known = self._known[proof] = _Known(key, known.secret, _principal(key))
        if key is None or known.secret not in key.valid_secrets(self._now()):
            del self._known[proof]
            return None
        return known.principal

    async def verified(self, text: str) -> Principal:
        """The caller of a key. Raises CredentialsInvalid, whatever is wrong with it."""
        found = self.recognised(text)
        if found is not None:
            return found
        secret = key_secrets.parsed(text)
        key = self._keys().get(secret.id) if secret is not None else None
        if secret is None or key is None:
            raise CredentialsInvalid(INVALID)
        proof = _proof(text)
        task = self._verifying.get(proof)
        if task is None:
            if len(self._verifying) >= MAX_VERIFYING:
                raise ResourceExhausted(
                    "too many keys are used for the first time at once: try again",
                    retry_after_s=1.0,
                )
            task = asyncio.create_task(self._match(secret, key), name="verify a key")
            self._verifying[proof] = task
            task.add_done_callback(lambda _: self._verifying.pop(proof, None))
        matched = await asyncio.shield(task)
        if matched is None:
            raise CredentialsInvalid(INVALID)
        principal = _principal(key)
        self._known[proof] = _Known(key, matched, principal)
        self._known.move_to_end(proof)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    def is_revoked(self, id_: str) -> bool:
        """Whether a key, or the process that joined with it, was ended."""
        key = self._keys().get(id_)
        return key is not None and key.revoked_unix_s > 0

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _match(self, secret: key_secrets.KeySecret, key: ApiKey) -> SecretHash | None:
        """The hash of the key that the secret has; None: none that is valid."""
        loop = asyncio.get_running_loop()
        for known in key.valid_secrets(self._now()):
            if await loop.run_in_executor(self._thread, key_secrets.matches, secret, known):
                return known
        return None


def _proof(text: str) -> bytes:
    """What a verified key is kept under: not the key itself, and of no use in another process."""
    return hashlib.blake2s(text.encode(), key=_OF_PROCESS).digest()


def _principal(key: ApiKey) -> Principal:
    return Principal(f"key:{key.id}", key.role, key.grants, key.tenant)

"""The first key: an admin's, in a file that only this user can read."""

import asyncio
import os
from pathlib import Path

import structlog

from control_plane.identity import key_secrets
from control_plane.store.registry import DesiredState
from control_plane.types.access.api_key import ApiKey, Role
from control_plane.view.view import View

log = structlog.get_logger()


def read(path: Path) -> key_secrets.KeySecret | None:
    """The key in the file; None: there is no file. Raises ValueError if it holds no key."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    secret = key_secrets.parsed(text)
    if secret is None:
        raise ValueError(f"{path} holds no API key (yp_ID_SECRET): remove it to have one made")
    return secret


async def ensure(path: Path, registry: DesiredState, view: View, now: float) -> bool:
    """Makes the key of the file valid, and the file with a new key where the registry has no valid
    key of an admin. Returns whether it wrote to the registry. OSError if the file can't be made.
    """
    secret = await asyncio.to_thread(read, path)
    keys = view.desired.api_keys
    if secret is None:
        if any(key.makes_keys(now) for key in keys.values()):
            return False
        secret = key_secrets.new_secret()
        await asyncio.to_thread(_write, path, secret)
        log.warning("an admin's API key was made: keep its file secret", file=str(path))
    elif secret.id in keys:
        return False
    hashed = await asyncio.to_thread(key_secrets.hashed, secret)
    key = ApiKey(secret.id, "first admin", "", Role.ADMIN, ("*",), (hashed,), now)
    await registry.put_api_key(key)
    return True


def _write(path: Path, secret: key_secrets.KeySecret) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret.text + "\n")

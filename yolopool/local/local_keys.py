"""The keys of a pool on this machine that asks who calls: its admin's, and its processes'."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from yolopool.client.client import Client
from yolopool.errors import Unauthenticated, Unavailable

ADMIN_KEY, WORKER_KEY = "admin.key", "worker.key"
POLL_S = 0.1


def admin_key(data_dir: Path, address: str, limit_s: float) -> str:
    """The admin's key, which the control plane writes. Raises the last error if it is not valid in
    time.
    """
    until = time.monotonic() + limit_s
    while True:
        text = _read(data_dir / ADMIN_KEY)
        try:
            with Client(address, text) as client:
                client.list_keys()
            return text
        except (Unauthenticated, Unavailable):
            if time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def of_processes(data_dir: Path, client: Client) -> Mapping[str, str]:
    """The variables that give workers and importer their key: kept in a file from run to run."""
    path = data_dir / WORKER_KEY
    text = _read(path)
    now = time.time()
    valid = {
        key.id
        for key in client.list_keys()
        if not key.revoked_unix_s and not 0 < key.expires_unix_s < now
    }
    secret = text
    if text[len("yp_") :].partition("_")[0] not in valid:
        secret = client.create_key("worker", label="processes of this machine").secret
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
    return {"YOLOPOOL_WORKER_API_KEY": secret, "YOLOPOOL_IMPORTER_API_KEY": secret}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""

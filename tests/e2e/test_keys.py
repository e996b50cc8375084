"""A pool on this machine that asks every caller for a key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolopool.client.client import Client
from yolopool.errors import CredentialsInvalid, CredentialsMissing, RoleNeeded
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = pytest.mark.e2e


def test_a_pool_with_keys_serves_those_who_have_one(tmp_path: Path) -> None:
    options = PoolOptions(tmp_path, port=0, http_port=0, devices="sim:1", auth=True)
    made: set[str] = set()
    for _ in range(2):  # the second start finds its keys
        with LocalPool(options, lambda _: None) as pool:
            with Client(pool.address) as nobody, pytest.raises(CredentialsMissing):
                nobody.models()
            with Client(pool.address, pool.api_key) as admin:
                assert [worker.state for worker in admin.workers()] == ["READY"]
                assert {key.role for key in admin.list_keys()} == {"worker", "admin", *made}
            _operate(pool.address, pool.api_key)
            made = {"detect"}
            worker_key = (tmp_path / "worker.key").read_text().strip()
            with Client(pool.address, worker_key) as worker, pytest.raises(RoleNeeded):
                worker.models()
            _assert_no_secret_in_the_process_list(pool.api_key, worker_key)
    assert worker_key not in "".join(path.read_text() for path in (tmp_path / "logs").iterdir())


def _operate(address: str, api_key: str) -> None:
    """The commands of the page."""
    environ = {**os.environ, "YOLOPOOL_ADDRESS": address, "YOLOPOOL_API_KEY": api_key}

    def keys(*arguments: str) -> str:
        command = [sys.executable, "-m", "yolopool", "keys", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    secret = keys(
        "create", "--role", "detect", "--models", "team-a/*", "--label", "camera 7", "--days", "90"
    ).strip()
    id_ = secret.split("_")[1]
    assert "camera 7" in keys("list")
    assert keys("rotate", id_, "--overlap", "3600").startswith(f"yp_{id_}_")
    with Client(address, secret) as caller:
        assert caller.models() == ()
    keys("revoke", id_)
    with Client(address, secret) as caller, pytest.raises(CredentialsInvalid):
        caller.models()


def _assert_no_secret_in_the_process_list(*keys: str) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    for key in keys:
        assert key not in listed.stdout

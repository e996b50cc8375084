"""A pool of real processes with TLS, keys, tokens and a Redis with a password: it works, and
nothing that it writes or shows has a secret in it.
"""

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.oidc_issuer import OidcIssuer
from tests.contract.redis_servers import any_kind, server
from yolopool.client.async_client import AsyncClient
from yolopool.errors import YolopoolError
from yolopool.tls import authority

pytestmark = [pytest.mark.e2e, pytest.mark.matrix(sample=0)]

PASSWORD = "r3dis-passw0rd-of-this-test"
MODEL = Path("examples/shapes/models/shapes.pt")
IMAGE = Path("examples/shapes/images/00000.png")


class TrustedPool:
    """Processes as docs/security.md starts them, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certs = folder / "certs"
        self.issuer = OidcIssuer(folder / "issuer")
        self.processes: list[subprocess.Popen[str]] = []
        self.secrets: dict[str, str] = {}  # by what they are of
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        folder = self.folder
        authority.create(self.certs, time.time())
        hosts = ("127.0.0.1", "localhost")
        authority.issue(self.certs, "plane", "control-plane", hosts, 1.0, time.time())
        await self.issuer.start()
        self._stack.push_async_callback(self.issuer.stop)
        (folder / "redis").mkdir()
        (folder / "redis.password").write_text(PASSWORD)
        flags = ("--requirepass", PASSWORD)
        self._stack.enter_context(server(any_kind(), folder / "redis", *flags))
        line = self.run(
            "control_plane", "--port=0", "--http-port=0", "--pool-port=0", "--auth=keys",
            f"--data-dir={folder / 'plane'}", f"--redis=unix://{folder}/redis/redis.sock",
            f"--redis-password-file={folder / 'redis.password'}",
            f"--oidc={self.issuer.file(folder / 'issuers.toml')}",
            f"--tls-ca={self.certs / 'ca.pem'}", f"--tls-cert={self.certs / 'plane.pem'}",
            f"--tls-key={self.certs / 'plane.key'}", f"--tls-ca-key={self.certs / 'ca.key'}",
        )  # fmt: skip
        self.grpc, self.http, self.pool = line["grpc"], line["http"], line["pool"]
        self.admin_key = await self._admin_key()
        self.join_tokens: dict[str, str] = {}
        own = {
            "worker": [f"--data-dir={folder / 'packs'}", "--devices=sim:1"],
            "importer": [f"--scratch-dir={folder}"],
        }
        for module, name in (("worker", "gpu-1"), ("importer", "importer-1")):
            self.join_tokens[name] = self.cli(
                "certs", "join-token", "--name", name, "--host", "127.0.0.1", "--minutes", "15"
            ).strip()
            file = folder / f"{name}.token"
            file.write_text(self.join_tokens[name])
            self.run(
                module, f"--join-token-file={file}", f"--join-at={self.grpc}",
                f"--join-dir={folder / name}", f"--control-planes={self.pool}",
                *own[module],
            )  # fmt: skip

    def run(self, module: str, *arguments: str) -> dict[str, Any]:
        """Starts a process that logs into a file. Returns the first line that it announces."""
        with (self.folder / f"{module}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=subprocess.PIPE if module == "control_plane" else log, stderr=log, text=True,
            )  # fmt: skip
        self.processes.append(process)
        if process.stdout is None:
            return {}
        found: dict[str, Any] = json.loads(process.stdout.readline())
        return found

    async def _admin_key(self) -> str:
        path = self.folder / "plane" / "admin.key"
        async with asyncio.timeout(30):
            # Another process makes the file, and then writes into it.
            while not (path.exists() and path.read_text().strip()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return path.read_text().strip()

    def cli(self, *arguments: str) -> str:
        environ = {
            **os.environ, "YOLOPOOL_ADDRESS": self.grpc, "YOLOPOOL_API_KEY": self.admin_key,
            "YOLOPOOL_CA": str(self.certs / "ca.pem"),
        }  # fmt: skip
        command = [sys.executable, "-m", "yolopool", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, key: str) -> AsyncClient:
        return AsyncClient(self.grpc, key, ca=self.certs / "ca.pem")

    async def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        await self._stack.aclose()


@asynccontextmanager
async def trusted(folder: Path) -> AsyncIterator[TrustedPool]:
    pool = TrustedPool(folder)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.stop()


async def has_a_worker(client: AsyncClient) -> None:
    async with asyncio.timeout(60):
        while "READY" not in {worker.state for worker in await client.workers()}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def use(pool: TrustedPool) -> list[str]:
    """Calls of every kind, also with secrets where none belong. Returns what was told."""
    told = []
    token = pool.issuer.token(groups=["admins"])
    async with pool.client(pool.admin_key) as admin:
        await has_a_worker(admin)
        await admin.register("shapes", MODEL)
        detect = await admin.create_key("detect", label="camera 7")
        rotated = await admin.rotate_key(detect.key.id)
        told += [event.message async for event in admin.events()]
    pool.secrets = {
        "admin key": pool.admin_key.split("_")[2],
        "detect key": detect.secret.split("_")[2],
        "rotated key": rotated.secret.split("_")[2],
        "token": token.split(".")[2],
        "claims": token.split(".")[1],
        **{
            f"join token of {n}": t.split("_")[2].split(".")[0] for n, t in pool.join_tokens.items()
        },
        "password": PASSWORD,
        **private_keys(pool.folder),
    }
    async with pool.client(rotated.secret) as caller:
        assert (await caller.detect(IMAGE, model="shapes")).model == "shapes@1"
    wrong = (pool.admin_key[:-1] + "0", token[:-2] + "xx", detect.secret, "nonsense")
    async with AsyncClient(pool.grpc, ca=pool.certs / "ca.pem", token=lambda: token) as caller:
        await caller.load("shapes", wait=False)
        for secret in (*wrong, pool.admin_key, token, *pool.join_tokens.values()):
            for call in (
                caller.model(secret), caller.detect(IMAGE, model=secret),
                caller.explain_request(secret), caller.revoke_key(secret),
                caller.revoke_certificate(secret), caller.drain_worker(secret),
            ):  # fmt: skip
                await _failed(call, [])
    for key in wrong:
        async with pool.client(key) as stranger:
            await _failed(stranger.models(), told)
    context = ssl.create_default_context(cafile=str(pool.certs / "ca.pem"))
    async with httpx.AsyncClient(base_url=f"https://{pool.http}", verify=context) as http:
        for secret in (pool.admin_key, token):
            shown = {"authorization": f"Bearer {secret}"}
            for answer in (
                await http.get("/v1/models", params={"api_key": secret}),
                await http.get(f"/v1/keys/{secret}"),
                await http.delete(f"/v1/keys/{secret}", headers=shown),
                await http.get("/v1/models", headers={"authorization": secret}),
            ):
                assert answer.status_code >= 400
            told.append((await http.get("/metrics", headers=shown)).text)
            told.append((await http.get("/v1/certificates", headers=shown)).text)
            told.append((await http.get("/v1/keys", headers=shown)).text)
    return told


async def _failed(call: Any, told: list[str]) -> None:
    try:
        await call
    except YolopoolError as error:
        told.append(f"{error} {error.details}")


def private_keys(folder: Path) -> dict[str, str]:
    """A line out of the middle of every private key."""
    found = {}
    for path in (*folder.glob("certs/*.key"), *folder.glob("*/own.pem")):
        body = re.search(r"-----BEGIN PRIVATE KEY-----\n(.*?)-----END", path.read_text(), re.DOTALL)
        assert body is not None
        found[f"key {path.parent.name}/{path.name}"] = body[1].split("\n")[1]
    return found


def written(folder: Path, but: Sequence[str]) -> dict[str, bytes]:
    """All that the processes wrote but the files of the secrets themselves."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.match(pattern) for pattern in but)
    }


def command_lines() -> bytes:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:  # it ended
            continue
    return b"\n".join(lines)


async def test_nothing_tells_a_secret(tmp_path: Path) -> None:
    async with trusted(tmp_path) as pool:
        told = await use(pool)
        shown = {"told": "\n".join(told).encode(), "command lines": command_lines()}
        await asyncio.sleep(2.5)  # the local copy of the registry is written every two seconds
        async with pool.client(pool.admin_key) as admin:
            names = {one.name for one in await admin.certificates() if one.joined_unix_s}
            assert names == {"gpu-1", "importer-1"}
            assert "joined, valid to" in pool.cli("certs", "list")
            pool.cli("certs", "revoke", "gpu-1")
            async with asyncio.timeout(30):
                while "READY" in {one.state for one in await admin.workers()}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    own = ("admin.key", "*.token", "redis.password", "*.key", "own.pem")
    shown |= written(tmp_path, own)
    assert {"control_plane.log", "worker.log", "importer.log"} <= shown.keys()
    assert any("appendonly" in name for name in shown)
    assert b"audit" in shown["control_plane.log"]
    # The test finds what is there: an id of a key is in the registry and in the logs.
    assert pool.admin_key.split("_")[1].encode() in shown["control_plane.log"]
    leaks = [
        f"{what} in {where}"
        for what, secret in pool.secrets.items()
        for where, data in shown.items()
        if secret.encode() in data and not where.endswith((".pt", ".bin"))
    ]
    # The server of this test is told its password as anyone would not.
    assert [leak for leak in leaks if leak != "password in command lines"] == []

"""What authentication and TLS cost: CPU of the control plane per Detect, and latency.

    python -m benchmarks.authentication

The device takes no time. A pool that asks nobody, one that asks for keys and tokens, and one that
also speaks TLS everywhere run side by side and are called in turns, so that figures of a round may
be compared.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from joserfc import jwt
from joserfc.jwk import RSAKey

from benchmarks.harness import hardware, results, turns
from benchmarks.harness.fleet import is_serving, register
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.turns import Call
from benchmarks.rpc_floor import MODEL, NO_DEVICE, Picture, pixels_of
from yolopool.client.async_client import AsyncClient
from yolopool.errors import YolopoolError
from yolopool.tls import authority
from yolopool.transport import bearer
from yolopool.v1 import detection_pb2, detection_pb2_grpc

NAME = "m640"
PICTURE = Picture(640, 480, 100_000, 640)
BASE, RATIO = "nothing", "cpu_of_nothing"
# By what callers show and how they connect: the pool that they call.
WAYS = {BASE: "open", "keys": "keys", "keys, TLS": "tls", "JWT": "keys", "JWT, TLS": "tls"}
# CPU of the control plane, as a multiple of that of a pool which asks nobody and does not encrypt.
LIMITS = {"keys": 1.03, "keys, TLS": 1.15, "JWT": 1.03, "JWT, TLS": 1.15}
START_LIMIT_S, STOP_LIMIT_S = 120.0, 20.0
ADMIN_KEY = f"yp_{'a' * 10}_{'b' * 48}"  # of pools that live for minutes


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.authentication", description=__doc__)
    results.add_flags(parser)
    turns.add_flags(parser)
    parser.add_argument("--ways", default=";".join(WAYS), help="which, separated by ;")
    return parser


class Issuer:
    """An issuer of tokens on loopback, with one RSA key as most have."""

    def __init__(self) -> None:
        self._key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        keys = {"keys": [self._key.as_dict(private=False)]}

        class Documents(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
                found = keys if self.path == "/keys" else {"issuer": url, "jwks_uri": f"{url}/keys"}
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Documents)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self) -> str:
        """Of a caller with the claims that tokens of such an issuer mostly have."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": "yolopool", "sub": "0f8fad5b-d9cb-469f-a165-70867728950e",
            "azp": "cameras", "iat": now, "exp": now + 7200, "scope": "openid profile email",
            "groups": ["staff", "cameras"], "jti": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        }  # fmt: skip
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self._key)

    def file(self, path: Path) -> Path:
        path.write_text(
            f'[[issuer]]\nurl = "{self.url}"\naudience = "yolopool"\nrole_claim = "groups"\n'
            '[[issuer.grant]]\nwhen = "cameras"\nrole = "detect"\n'
        )
        return path

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class AskingPool:
    """A control plane, a worker and an importer; `kind`: open, keys, or tls, which asks too."""

    def __init__(self, kind: str, folder: Path, issuers: Path) -> None:
        self.kind, self.folder, self._issuers = kind, folder, issuers
        self._processes: list[asyncio.subprocess.Process] = []
        self.address = self.key = self.ca = ""

    async def start(self) -> None:
        folder, kind = self.folder, self.kind
        folder.mkdir()
        asks = ["--auth=keys", f"--oidc={self._issuers}"] if kind != "open" else []
        if asks:
            (folder / "admin.key").write_text(ADMIN_KEY)
            self.key = ADMIN_KEY
        plane = await self._run(
            "control_plane", "--port=0", "--http-port=0", f"--data-dir={folder}", *asks,
            *self._tls("plane", "control-plane"), *(["--pool-port=0"] if kind == "tls" else []),
        )  # fmt: skip
        self.plane = plane.pid
        assert plane.stdout is not None
        listening = json.loads(await plane.stdout.readline())
        self.address = listening["grpc"]
        at = f"--control-planes={listening.get('pool', self.address)}"
        environ = {}
        if kind == "keys":
            made = await self._made_key()
            names = ("YOLOPOOL_WORKER_API_KEY", "YOLOPOOL_IMPORTER_API_KEY")
            environ = dict.fromkeys(names, made)
        await self._run(
            "worker", at, "--devices=sim:1", f"--data-dir={folder / 'packs'}",
            *self._tls("worker", "worker"), environ=environ,
        )  # fmt: skip
        await self._run(
            "importer", at, f"--scratch-dir={folder}", *self._tls("importer", "worker"),
            environ=environ,
        )  # fmt: skip
        async with self.client() as client:
            await _ready(client)
            await register(client, NAME, MODEL, image_size=PICTURE.image_size)

    def client(self) -> AsyncClient:
        return AsyncClient(self.address, self.key, ca=self.ca or None)

    async def _made_key(self) -> str:
        async with self.client() as client, asyncio.timeout(START_LIMIT_S):
            while True:
                try:
                    return (await client.create_key("worker")).secret
                except YolopoolError:
                    await asyncio.sleep(0.1)

    def _tls(self, name: str, role: str) -> list[str]:
        if self.kind != "tls":
            return []
        certs = self.folder / "certs"
        if not certs.exists():
            authority.create(certs, time.time())
        authority.issue(certs, name, role, ["127.0.0.1"], 1.0, time.time())
        self.ca = str(certs / "ca.pem")
        own = (f"--tls-cert={certs / name}.pem", f"--tls-key={certs / name}.key")
        return [f"--tls-ca={self.ca}", *own]

    async def _run(
        self, module: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        with (self.folder / f"{module}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments,
                stdout=asyncio.subprocess.PIPE if module == "control_plane" else log, stderr=log,
                env={**os.environ, **(environ or {})},
            )  # fmt: skip
        self._processes.append(process)
        return process

    async def stop(self) -> None:
        for process in self._processes[::-1]:
            process.terminate()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
            except TimeoutError:
                process.kill()


async def _ready(client: AsyncClient) -> None:
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            try:
                if is_serving(await client.workers(), await client.models(), 1, False):
                    return
            except YolopoolError:
                pass
            await asyncio.sleep(0.1)


@asynccontextmanager
async def opened(order: Mapping[str, Any], image: bytes) -> AsyncIterator[Call]:
    """A connection of a caller who shows what the order says."""
    request = detection_pb2.DetectRequest(model=NAME, encoded=image)
    metadata = bearer(order["shown"])
    address = order["address"]
    if order["ca"]:
        root = await asyncio.to_thread(Path(order["ca"]).read_bytes)
        credentials = grpc.ssl_channel_credentials(root)
        made = grpc.aio.secure_channel(address, credentials)
    else:
        made = grpc.aio.insecure_channel(address)
    async with made as channel:
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        yield lambda: stub.Detect(request, timeout=20, metadata=metadata)


async def run(options: argparse.Namespace) -> Result:
    """All ways, in turns."""
    machine, started_at = hardware.describe(), results.now()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (NO_DEVICE, before)))
    ways = options.ways.split(";")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yolopool-")))
        issuer = Issuer()
        stack.callback(issuer.stop)
        pools = {
            kind: AskingPool(kind, folder / kind, issuer.file(folder / "issuers.toml"))
            for kind in dict.fromkeys(WAYS[way] for way in ways)
        }
        for pool in pools.values():
            stack.push_async_callback(pool.stop)
            await pool.start()
        keys = {kind: await _detect_key(pool) for kind, pool in pools.items()}
        token = issuer.token()
        orders = {}
        for way in ways:
            pool = pools[WAYS[way]]
            shown = token if "JWT" in way else keys[pool.kind]
            orders[way] = ({"address": pool.address, "ca": pool.ca, "shown": shown}, [pool.plane])
        rows = await turns.measured("benchmarks.authentication", "way", orders, options)
    table = turns.summary(rows, "way", BASE, RATIO)
    return Result(
        scenario="authentication",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"ways": table},
        checks=verdicts(table),
    )


async def _detect_key(pool: AskingPool) -> str:
    """A key as callers have one; of a pool that asks nobody, none."""
    if pool.kind == "open":
        return ""
    async with pool.client() as client:
        return (await client.create_key("detect")).secret


def verdicts(table: Sequence[Row]) -> tuple[Check, ...]:
    checks = []
    for row in table:
        limit = LIMITS.get(str(row["way"]))
        if limit is not None:
            ratio = turns.number(row, RATIO)
            name = f"{row['way']}: at most {limit:g} x the CPU of a pool that asks nobody"
            checks.append(Check(name, ratio <= limit, f"{ratio:.3f} x"))
    return tuple(checks)


async def send(order: Mapping[str, Any]) -> None:
    """The client process."""
    image = pixels_of(PICTURE)[0]
    await turns.send(order, lambda: opened(order, image))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    return turns.main(flags().parse_args(arguments), send, run)


if __name__ == "__main__":
    sys.exit(main())

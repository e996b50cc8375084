"""One worker process, asked directly: no control plane stands between a scenario and its loads."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from benchmarks.harness.pool import free_port
from yolopool.status import error_from_rpc
from yolopool.v1 import fleet_pb2, types_pb2, worker_pb2, worker_pb2_grpc

START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
CALL_S = 120.0
PLAIN_LRU = str(Path(__file__).parent / "plain_lru")


class Worker:
    """`async with Worker("cpu", flags) as worker`: listening inside, ended after.

    As the supervisor starts it: with its device's way to wait for threads. `plain_lru`: what is
    kept on the device is what was used last.
    """

    def __init__(self, device: str, flags: Sequence[str] = (), *, plain_lru: bool = False) -> None:
        self._device = device
        self._flags = flags
        self._environment = dict(os.environ)
        if plain_lru:
            before = os.environ.get("PYTHONPATH", "")
            self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, (PLAIN_LRU, before)))
        self.pid = 0
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Worker":
        self._folder = tempfile.TemporaryDirectory(prefix="yolopool-")
        address = f"127.0.0.1:{free_port()}"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", f"--devices={self._device}"),
            f"--port={address.rpartition(':')[2]}",
            f"--data-dir={self._folder.name}",
            "--control-planes=127.0.0.1:1",
            "--log-level=ERROR",
            *self._flags,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = worker_pb2_grpc.WorkerServiceStub(self._channel)
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_LIMIT_S):
                line = await self._process.stdout.readline()
                self.pid = int(line.split(b'"pid": ')[1].split(b"}")[0])
                while not await self._is_ready():  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(0.1)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        await self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    async def assign(self, name: str, pack: Path, image_size: int, pin: bool = False) -> Any:
        """Loads the pack in a folder that is named by its digest; returns when it is HOT."""
        request = worker_pb2.AssignRequest(
            version=types_pb2.VersionKey(model=name, version=1),
            settings=types_pb2.VersionSettings(
                image_size=image_size, confidence=0.25, iou=0.7, max_detections=300,
                shape_policy=types_pb2.SHAPE_POLICY_RECT,
            ),
            pack=worker_pb2.PackLocation(uri=pack.as_uri(), digest=pack.name),
            variant=types_pb2.Variant(precision="fp32"),
            pin=pin,
        )  # fmt: skip
        return await self._stub.Assign(request, timeout=CALL_S)

    async def infer(
        self,
        name: str,
        image: bytes,
        priority: types_pb2.Priority.ValueType = types_pb2.PRIORITY_NORMAL,
        timeout_s: float = CALL_S,
    ) -> Any:
        """One image; raises the worker's typed errors."""
        version = types_pb2.VersionKey(model=name, version=1)
        request = worker_pb2.InferRequest(version=version, encoded=image, priority=priority)
        try:
            return await self._stub.Infer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def release(self, name: str) -> None:
        version = types_pb2.VersionKey(model=name, version=1)
        await self._stub.Release(worker_pb2.ReleaseRequest(version=version), timeout=CALL_S)

    async def inventory(self) -> fleet_pb2.Worker:
        request = worker_pb2.GetInventoryRequest()
        worker: fleet_pb2.Worker = (await self._stub.GetInventory(request, timeout=CALL_S)).worker
        return worker

    async def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"the worker ended with status {self._process.returncode}")
        try:
            return (await self.inventory()).state == fleet_pb2.WORKER_STATE_READY
        except grpc.aio.AioRpcError:
            return False

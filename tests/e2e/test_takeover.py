"""Two control planes as processes on one Redis: when the one that decides ends, the other does."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.redis_servers import any_kind, server
from tests.waiting import until
from yolopool.v1 import fleet_pb2, fleet_pb2_grpc

pytestmark = pytest.mark.e2e


class Plane:
    """A control plane process and its fleet service."""

    def __init__(self, folder: Path, redis: str) -> None:
        command = [sys.executable, "-m", "control_plane", "--port", "0", "--http-port", "0"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(folder), "--redis", redis],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["grpc"]
        self._channel = grpc.insecure_channel(self.address)
        self._fleet: Any = fleet_pb2_grpc.FleetServiceStub(self._channel)

    def fleet(self) -> Any:
        return self._fleet.GetFleet(fleet_pb2.GetFleetRequest(), timeout=5, wait_for_ready=True)

    def decides(self) -> bool:
        answer = self.fleet()
        return bool(answer.reconciler == answer.control_plane)

    def end(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def planes() -> Iterator[tuple[Plane, Plane]]:
    """The first decides."""
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        folder = Path(path)
        (folder / "redis").mkdir()
        url = f"unix://{folder}/redis/redis.sock"
        with server(any_kind(), folder / "redis"):
            one = Plane(folder / "one", url)
            until("the first decides", one.decides)
            other = Plane(folder / "other", url)
            name = one.fleet().control_plane
            until("the other knows who decides", lambda: other.fleet().reconciler == name)
            yield one, other
            one.end()
            other.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_when_the_one_that_decides_ends_the_other_does(
    planes: tuple[Plane, Plane], number: signal.Signals
) -> None:
    one, other = planes
    one.process.send_signal(number)
    until("the other decides", other.decides, 20.0)
    if number is signal.SIGSTOP:
        one.process.send_signal(signal.SIGCONT)
        name = other.fleet().control_plane
        until("it leaves that to the other", lambda: one.fleet().reconciler == name)
        assert other.decides()

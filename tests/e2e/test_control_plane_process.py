"""`python -m control_plane` as a process: one line when it listens, gone soon after a signal."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytestmark = pytest.mark.e2e


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "control_plane", "--port", "0", "--http-port", "0"]
    return subprocess.Popen(
        [*command, "--data-dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_serves_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    try:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert set(line) == {"event", "grpc", "http"}
        with grpc.insecure_channel(line["grpc"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
            serving = health_pb2.HealthCheckResponse.SERVING
            assert any(answer.status == serving for answer in watch)
            watch.cancel()
        with urllib.request.urlopen(f"http://{line['http']}/readyz", timeout=5) as answer:
            assert answer.status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert out == ""
    assert all(json.loads(entry)["event"] for entry in err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--redis", "http://nowhere"], "is no URL of a Redis"),
        (["--lease-s", "0.1"], "less than two heartbeat intervals"),
    ],
)
def test_what_is_wrong_at_the_start_is_said(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    process = start(tmp_path, *arguments)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert says in err

"""What commands do where somebody else listens, and where nobody does."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from yolopool.cli.main import app
from yolopool.local.installed import StartFailed
from yolopool.local.pool import PoolOptions, refuse_busy


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(1))  # it answers, and knows no pool
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(StartFailed, match=f"another program listens on 127.0.0.1:{port}"):
        refuse_busy(PoolOptions(tmp_path, port=port))
    server.stop(0).wait()
    refuse_busy(PoolOptions(tmp_path, port=port))


def test_a_pool_may_be_taken_back() -> None:
    """An empty value of --pool is one, and nobody answers at the address."""
    words = ["models", "placement", "a", "--pool", "", "--address", "127.0.0.1:1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 2, done.output
    assert "is empty" not in done.output

"""Runs the command line against a pool, in this process."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.contract.scripted_pool import ScriptedPool
from yolopool.cli.main import main

CLI = [sys.executable, "-c", "from yolopool.cli.main import main; main()"]


def environment(pool: ScriptedPool | None) -> dict[str, str]:
    address = pool.address if pool is not None else "127.0.0.1:1"
    return {"YOLOPOOL_ADDRESS": address, "COLUMNS": "80", "NO_COLOR": "1"}


def yolopool(pool: ScriptedPool | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line in this process: an interpreter for each command takes a second."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with (
        mock.patch.dict(os.environ, environment(pool)),
        mock.patch.object(sys, "argv", ["yolopool", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    status = ended.value.code
    assert status is None or isinstance(status, int)
    return subprocess.CompletedProcess(words, status or 0, out.getvalue(), err.getvalue())

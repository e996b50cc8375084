"""A whole pool on this machine: Redis, control plane, importer and workers as child processes.

Starts them in order, restarts those that end, and ends them all when the `with` is left; if this
process dies, the kernel ends them. Their output goes to files under the data directory.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO

from yolopool.client.client import Client
from yolopool.errors import Unavailable, YolopoolError
from yolopool.local import local_keys
from yolopool.local.embedded_redis import EmbeddedRedis
from yolopool.local.installed import MODULES_OF_EXTRA, StartFailed, check_extras
from yolopool.local.process_log import ProcessLog
from yolopool.server import parent_death
from yolopool.server.process import keep_from_others

START_LIMIT_S = 90.0
STOP_LIMIT_S = 4.0
POLL_S = 0.1
RESTART_DELAY_S = 1.0
# In the folder of logs; `yolopool doctor` reads it there.
REQUEST_LOG = "requests.jsonl"


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of `yolopool up`; `redis` empty: an embedded server."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 50051
    http_port: int = 8080
    redis: str = ""
    devices: str = "auto"
    memory_budget: str = ""
    load: tuple[str, ...] = ()
    auth: bool = False
    insecure: bool = False

    @property
    def min_workers(self) -> int:
        """How many workers to wait for at least: eight for sim:8, two for cpu:2x4."""
        kind, _, part = self.devices.partition(":")
        count, times, _ = part.partition("x")
        many = kind == "sim" or (kind == "cpu" and times)
        return int(count) if many and count.isdigit() else 1


@dataclass(slots=True)
class _Child:
    """A process with its log file; restarted after a delay if it ends by itself."""

    name: str
    command: list[str]
    log: ProcessLog
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    restart_at: float = field(default=0.0)

    def start(self, stdout: int = subprocess.DEVNULL) -> None:
        """Raises OSError if the machine has no room for another process."""
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()  # of the one that ended
        with self.log.opened() as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                env=parent_death.environment({**os.environ, **self.environ}),
                # Ctrl-C reaches this process alone, which ends the others in order.
                start_new_session=True,
            )

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


class LocalPool:
    """`with LocalPool(options, say) as pool`: serves inside the `with`, ends all processes after.

    Entering raises StartFailed, or OSError if Redis cannot start.
    """

    def __init__(self, options: PoolOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self.address = ""
        self.http = ""
        self.api_key = ""  # the admin's, of a pool that asks who calls
        self._say = say
        self._children: list[_Child] = []
        self._stack = ExitStack()

    def __enter__(self) -> "LocalPool":
        check_extras(*MODULES_OF_EXTRA)
        # Redis and the logs are started from here; the umask of this program stays as it is.
        inherited = keep_from_others()
        try:
            with ExitStack() as stack:
                self._start(stack)
                self._stack = stack.pop_all()
        finally:
            os.umask(inherited)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def watch(self, stopping: Callable[[], bool]) -> None:
        """Serves until `stopping()` is true; restarts processes that end by themselves."""
        while not stopping():
            time.sleep(POLL_S)
            now = time.monotonic()
            for child in self._children:
                if child.ended() and not child.restart_at:
                    self._say(f"{child.name} ended; restarting it (see {child.log.path})")
                    child.restart_at = now + RESTART_DELAY_S
                elif child.restart_at and now >= child.restart_at:
                    self._restart(child, now)

    def _restart(self, child: _Child, now: float) -> None:
        try:
            child.start()
            child.restart_at = 0.0
        except OSError as error:
            self._say(f"{child.name} can't be started now: {error.strerror}; trying again")
            child.restart_at = now + RESTART_DELAY_S

    def _start(self, stack: ExitStack) -> None:
        options = self.options
        logs = options.data_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        url = options.redis
        if not url:
            redis = EmbeddedRedis(options.data_dir)
            stack.callback(redis.stop)
            url = redis.start()
        stack.callback(self._end)  # before Redis: the stack runs backwards
        self._start_control_plane(logs, url)
        environ = self._keys()
        common = [f"--control-planes={self.address}", "--die-with-parent"]
        scratch = options.data_dir / "importer"
        self._launch(logs, "importer", [*common, f"--scratch-dir={scratch}"], environ)
        worker = [
            *common,
            f"--devices={options.devices}",
            f"--data-dir={options.data_dir / 'worker'}",
            f"--may-read={options.data_dir / 'store' / 'packs'}",
        ]
        if options.memory_budget:
            worker.append(f"--memory-budget={options.memory_budget}")
        self._launch(logs, "worker", worker, environ)
        self._wait_for_workers()

    def _start_control_plane(self, logs: Path, redis_url: str) -> None:
        options = self.options
        arguments = [
            f"--data-dir={options.data_dir}",
            f"--host={options.host}",
            f"--port={options.port}",
            f"--http-host={options.host}",
            f"--http-port={options.http_port}",
            *(f"--load={model}" for model in options.load),
            *(["--auth=keys"] if options.auth else []),
            *(["--insecure"] if options.insecure else []),
            f"--request-log={logs / REQUEST_LOG}",
            "--die-with-parent",
        ]
        # Not a flag: a password in it would be in the process list.
        environ = {"YOLOPOOL_CONTROL_PLANE_REDIS": redis_url}
        child = self._child(logs, "control_plane", arguments, environ)
        child.start(stdout=subprocess.PIPE)
        assert child.process is not None
        assert child.process.stdout is not None
        line = _first_line(child.process.stdout, START_LIMIT_S)
        if not line:
            child.process.wait(STOP_LIMIT_S)
            raise StartFailed(f"the control plane did not start:\n{child.log.last_words()}")
        listening = json.loads(line)
        self.address, self.http = listening["grpc"], listening["http"]
        # If it is restarted, it must listen where callers and workers know it.
        ports = {"port": self.address, "http-port": self.http}
        for flag, address in ports.items():
            child.command.append(f"--{flag}={address.rpartition(':')[2]}")

    def _keys(self) -> Mapping[str, str]:
        """The variables that give the other processes a key, if the pool asks who calls."""
        if not self.options.auth:
            return {}
        data_dir = self.options.data_dir
        self.api_key = local_keys.admin_key(data_dir, self.address, START_LIMIT_S)
        with Client(self.address, self.api_key) as client:
            return local_keys.of_processes(data_dir, client)

    def _child(
        self,
        logs: Path,
        module: str,
        arguments: Sequence[str],
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> _Child:
        path = logs / f"{module}.log"
        command = [sys.executable, "-m", module, *arguments, f"--log-file={path}"]
        child = _Child(module.replace("_", " "), command, ProcessLog(path), environ)
        self._children.append(child)
        return child

    def _launch(
        self, logs: Path, module: str, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        self._child(logs, module, arguments, environ).start()

    def _wait_for_workers(self) -> None:
        until = time.monotonic() + START_LIMIT_S
        with Client(self.address, self.api_key) as client:
            while time.monotonic() < until:
                for child in self._children:
                    if child.ended():
                        raise StartFailed(f"{child.name} ended:\n{child.log.last_words()}")
                with suppress(YolopoolError):
                    # Workers of an earlier run may be recorded as LOST.
                    states = [worker.state for worker in client.workers()]
                    ready = states.count("READY") >= self.options.min_workers
                    if ready and "STARTING" not in states:
                        return
                time.sleep(POLL_S)
        output = self._children[-1].log.last_words()
        raise StartFailed(f"no worker was ready within {START_LIMIT_S:.0f} s:\n{output}")

    def kill(self) -> None:
        """Kills all processes without waiting; for a signal handler."""
        for child in self._children:
            if child.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)

    def _end(self) -> None:
        """Sends SIGTERM to all, workers first, and kills those still running after STOP_LIMIT_S."""
        left = [child.process for child in self._children if child.process is not None]
        until = time.monotonic() + STOP_LIMIT_S
        try:
            for process in reversed(left):
                _signal(process, signal.SIGTERM)
            for process in reversed(left):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
        finally:
            for process in left:
                _kill(process)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # The process group, with a supervisor's own children.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _first_line(pipe: IO[bytes], limit_s: float) -> bytes:
    """The first line that a process prints; empty if it ends or the time is up first."""
    ready, _, _ = select.select([pipe], [], [], limit_s)
    return pipe.readline() if ready else b""


def on_signals(pool: LocalPool) -> Callable[[], bool]:
    """Handles SIGINT and SIGTERM from now on; the function returned says whether one has come.

    A second signal kills the pool and this process at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            pool.kill()
            os._exit(128 + number)
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return lambda: bool(asked)


def refuse_busy(options: PoolOptions) -> None:
    """Raises StartFailed if a pool, or something else, already answers on the port."""
    if not options.port:
        return
    address = f"127.0.0.1:{options.port}"
    what = "a pool already answers"
    with Client(address) as client:
        try:
            client.fleet()
        except Unavailable:
            return
        except YolopoolError:
            what = "another program listens"
    raise StartFailed(f"{what} on {address}: stop it, or give another --port")

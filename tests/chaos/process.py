"""One process of a pool by its name: started, stopped, killed, frozen, thawed, started again.

Nothing here blocks: callers go on being served by the same event loop while processes die.
"""

import asyncio
import os
import re
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolopool.server import parent_death

# More than a process gives itself, since the machine may do other things.
STOP_LIMIT_S = 20.0
POLL_S = 0.02
WIDTH = 300
_REQUEST = re.compile(r'"event": "(request|infer)"')


class Process:
    """A command that may be started any number of times; its words go to `log`.

    It must be started from the main thread: the kernel ends it when the thread that did is gone.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        # Of every start, to look for what was left behind.
        self.pids: list[int] = []
        # The folder of another release's packages, from which the next start takes the program.
        self.release: Path | None = None
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._command = tuple(command)
        self._log = log
        self._environ = {**parent_death.environment(os.environ), **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; a frozen one runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        environ = self._environ
        if self.release is not None:
            # The folder of `python -m` comes first on its path, then these.
            environ = {**environ, "PYTHONPATH": str(self.release)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=self.release,
                start_new_session=True,
            )
        self.pids.append(self._process.pid)

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: it is told to end, and nobody waits for it here."""
        self._send(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nobody answers on them."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def deny_descriptors(self) -> None:
        """From now on it may open no more than it has open."""
        own = Path(f"/proc/{self.pids[-1]}/fd")
        # The highest number counts, not how many there are.
        highest = max(int(path.name) for path in own.iterdir())
        self._descriptors = resource.prlimit(self.pids[-1], resource.RLIMIT_NOFILE)
        self._limit((highest + 1, self._descriptors[1]))

    def allow_descriptors(self) -> None:
        """Ends `deny_descriptors`."""
        self._limit(self._descriptors)

    def _limit(self, descriptors: tuple[int, int]) -> None:
        resource.prlimit(self.pids[-1], resource.RLIMIT_NOFILE, descriptors)

    async def stop(self) -> bool:
        """SIGTERM, and SIGKILL after a while; answers whether it ended by itself."""
        if not self.is_running:
            return True
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)
        try:
            await self.ended(STOP_LIMIT_S)
        except TimeoutError:
            self.kill()
            await self.ended(STOP_LIMIT_S)
            return False
        return True

    async def ended(self, limit_s: float) -> None:
        """Waits for its end; TimeoutError if it goes on."""
        async with asyncio.timeout(limit_s):
            while self.is_running:  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(POLL_S)

    def count(self, pattern: str) -> int:
        """Lines of its log that have a pattern."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return len(re.findall(pattern, text))

    def last_words(self) -> str:
        """The end of its log, without the line that each request leaves."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = [line[:WIDTH] for line in text.splitlines() if not _REQUEST.search(line)]
        return "\n".join(lines[-10:])

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} was never started"
        self._process.send_signal(number)

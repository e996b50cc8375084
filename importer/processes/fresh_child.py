"""Starts a child that is a new interpreter: it imports the libraries itself, which takes seconds.

For imports without a pool, where no prepared parent can be had, and where one is not wanted.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from importer.processes import environment
from importer.processes.running import Running, Talk

# -P: of its folder it imports nothing.
PROGRAM = ("-P", "-m", "importer.job")


async def start(order: bytes, folder: Path, program: Sequence[str] = PROGRAM) -> Running:
    """Raises OSError."""
    talk = Talk(order)
    try:
        stdin, stdout, stderr = talk.given
        lines, errors = await talk.readers()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env=environment.of_child(folder),
            start_new_session=True,
        )
    except BaseException:
        talk.close()
        raise
    finally:
        talk.give()
    return FreshChild(process, talk, lines, errors)


class FreshChild:
    """A Running child of this process."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        talk: Talk,
        lines: asyncio.StreamReader,
        errors: asyncio.StreamReader,
    ) -> None:
        self._process = process
        self._talk = talk
        self.pid = process.pid
        self.lines, self.errors = lines, errors

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def kill(self) -> None:
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        return await self._process.wait()

    def close(self) -> None:
        self._talk.close()

"""Children from a prepared parent: begins one, replaces it when its time is over, and does without
where none can be had.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from importer import store
from importer.processes import fresh_child, library_files
from importer.processes.forked_child import Zygote, ZygoteLost
from importer.processes.replacement import why_replaced
from importer.processes.running import Running

log = structlog.get_logger()

# A host that could not prepare one is asked again after so long, or with other libraries: imports
# begin afresh meanwhile.
RETRY_S = 600.0


class Prepared:
    """Its `start` is one of `running.Start`. All its calls are from one thread, the main one."""

    def __init__(
        self,
        scratch_dir: Path,
        monotonic: Callable[[], float],
        begin: Callable[[Path], Zygote] = Zygote,
    ) -> None:
        self._scratch_dir = scratch_dir
        self._monotonic = monotonic
        self._begin = begin
        self._turn = asyncio.Lock()
        self._zygote: Zygote | None = None
        self._files = ""
        self._not_before = 0.0

    async def start(self, order: bytes, folder: Path) -> Running:
        zygote = await self.prepare()
        if zygote is not None:
            try:
                return await zygote.start(order, folder)
            except ZygoteLost as error:
                log.warning("the prepared parent is lost", why=str(error))
                self._drop(zygote)
        return await fresh_child.start(order, folder)

    async def prepare(self) -> Zygote | None:
        """The parent, ready; one alone is begun at a time. None where none can be had."""
        async with self._turn:
            files = await asyncio.to_thread(library_files.fingerprint)
            if (zygote := self._zygote) is not None:
                why = why_replaced(
                    zygote.forks,
                    has_ended=zygote.has_ended,
                    has_crashed=zygote.has_crashed,
                    has_other_files=files != self._files,
                )
                if not why:
                    return zygote
                log.info("the prepared parent is replaced", why=why)
                self._drop(zygote)
            elif files == self._files and self._monotonic() < self._not_before:
                return None
            # Of before it is begun: what is written meanwhile it may have, or not.
            self._files = files
            self._zygote = await self._begun()
            return self._zygote

    async def _begun(self) -> Zygote | None:
        began = self._monotonic()
        with store.scratch(self._scratch_dir) as folder:
            zygote = None
            try:
                zygote = self._begin(folder)
                await zygote.ready()
            except (ZygoteLost, OSError) as error:
                log.warning("imports can't be prepared: each begins afresh", why=str(error))
                if zygote is not None:
                    zygote.close()
                self._not_before = self._monotonic() + RETRY_S
                return None
            except BaseException:
                if zygote is not None:
                    zygote.close()
                raise
        took_s = round(self._monotonic() - began, 2)
        log.info("imports are prepared", pid=zygote.pid, took_s=took_s, **zygote.memory())
        return zygote

    def close(self) -> None:
        """Ends the parent, and its children with it."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _drop(self, zygote: Zygote) -> None:
        zygote.retire()
        if self._zygote is zygote:
            self._zygote = None

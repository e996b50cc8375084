"""One attempt to bring a file into the artifact store, on from where the last one broke off."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from control_plane.sources.opening import Sources
from control_plane.sources.remote_file import Facts, Found, RemoteFile
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.files.upload import Upload
from control_plane.types.sources.source import Source
from yolopool.errors import DigestMismatch, SourceChanged, SourceUnavailable

Answer = TypeVar("Answer")
# Beside those that read: one that hangs on a lost mount keeps its thread.
SPARE_THREADS = 4
# Looks have threads of their own, so that watches of a lost mount do not hold up downloads.
LOOK_THREADS = 8


@dataclass(slots=True)
class Progress:
    """How far a download is; `size_bytes` 0: not known."""

    received_bytes: int = 0
    size_bytes: int = 0

    @property
    def fraction(self) -> float:
        return self.received_bytes / self.size_bytes if self.size_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """The name of the artifact in the store, and what is known of the file."""

    artifact: str
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


# Asks whether the store has room for so many bytes; raises what callers are told.
CheckRoom = Callable[[int], None]


class Downloads:
    """`parallel`: how many run at once."""

    def __init__(self, sources: Sources, artifacts: FolderArtifacts, parallel: int) -> None:
        self.sources = sources
        self._artifacts = artifacts
        self._threads = ThreadPoolExecutor(parallel + SPARE_THREADS, "sources")
        self._look_threads = ThreadPoolExecutor(LOOK_THREADS, "watches")

    async def attempt(self, source: Source, progress: Progress, check_room: CheckRoom) -> Arrived:
        """Raises what `Sources.open` and `FolderArtifacts.fetch` do, and what `check_room` does.
        What was received of a file that can be gone on with is kept.
        """
        if source.sha256 and self._artifacts.touch(source.sha256):
            return Arrived(source.sha256)
        opened = await self._open(source)
        try:
            facts = opened.facts
            progress.received_bytes, progress.size_bytes = 0, facts.size_bytes
            check_room(facts.size_bytes)
            if facts.stamp:
                digest = await self._resumed(source, opened, facts, progress)
            else:
                digest = await self._whole(source, opened, facts, progress)
        finally:
            opened.close()
        return Arrived(digest, facts.name, facts.metadata)

    async def listed(self, source: Source) -> list[Found]:
        """The files of a folder. Raises what `Sources.list` does."""
        look = self.sources.list
        return await asyncio.get_running_loop().run_in_executor(self._look_threads, look, source)

    async def blocking(self, work: Callable[..., Answer], *args: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def close(self) -> None:
        for threads in (self._threads, self._look_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _resumed(
        self, source: Source, opened: RemoteFile, facts: Facts, progress: Progress
    ) -> str:
        name = part_of(source, facts)
        try:
            async with self._artifacts.fetch(name, facts.size_bytes, source.sha256) as upload:
                begins, parts = await self.blocking(opened.read, upload.received_bytes)
                if begins != upload.received_bytes:
                    await upload.restart()
                await self._receive(upload, parts, facts, progress)
        except SourceChanged:
            await self._artifacts.forget(name)
            raise
        return upload.digest()

    async def _whole(
        self, source: Source, opened: RemoteFile, facts: Facts, progress: Progress
    ) -> str:
        """Of a store that tells no state of its files: nothing is kept of what breaks off."""
        async with self._artifacts.receive(facts.size_bytes) as upload:
            _, parts = await self.blocking(opened.read, 0)
            await self._receive(upload, parts, facts, progress)
            found = upload.digest()
            if source.sha256 and found != source.sha256:
                raise DigestMismatch(
                    f"the bytes hash to {found} and not to {source.sha256}: check the digest"
                )
        return found

    async def _receive(
        self, upload: Upload, parts: Iterator[bytes], facts: Facts, progress: Progress
    ) -> None:
        progress.received_bytes = upload.received_bytes
        while part := await self.blocking(next, parts, b""):
            await upload.write(part)
            progress.received_bytes = upload.received_bytes
        if facts.size_bytes and upload.received_bytes < facts.size_bytes:
            raise SourceUnavailable(
                f"{facts.name} ended after {upload.received_bytes} of {facts.size_bytes} bytes: it "
                "goes on from there"
            )

    async def _open(self, source: Source) -> RemoteFile:
        opening = self._threads.submit(self.sources.open, source)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            # What a thread opens for nobody is closed.
            opening.add_done_callback(_close)
            raise


def part_of(source: Source, facts: Facts) -> str:
    """The name under which a part of one state of a file is kept."""
    state = f"{source.uri}\n{source.profile}\n{facts.stamp}\n{facts.size_bytes}"
    return hashlib.sha256(state.encode()).hexdigest()


def _close(opening: "Future[RemoteFile]") -> None:
    with suppress(BaseException):  # it failed, or never began
        opening.result().close()

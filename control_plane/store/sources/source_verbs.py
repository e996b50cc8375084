"""The verbs that change watches, and versions whose file is fetched, as `transactions` has the
others; `SourceRecords` runs them.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from control_plane.store.transaction import ImportJob, Transaction, Writer
from control_plane.types import lifecycle
from control_plane.types.sources.watch import Watch
from control_plane.types.version import Imported, ModelVersion, ServingSpec, VersionKey


def fetched(
    tx: Transaction,
    key: VersionKey,
    artifact: str,
    given: ServingSpec,
    imported: Imported | None,
) -> ModelVersion | None:
    tx.expect(versions=[key])
    version = tx.version(key)
    if version is None or not version.is_fetching:
        return None
    whole = replace(version, artifact=artifact, given=given, progress=0.0, step="")
    if imported is not None:
        return tx.put_version(lifecycle.adopted(whole, *imported))
    tx.put_job(key, ImportJob(tx.revision))
    return tx.put_version(whole)


def fetch_progressed(tx: Transaction, key: VersionKey, fraction: float, step: str) -> None:
    version = tx.version(key)
    if version is not None and version.is_fetching:
        tx.put_version(lifecycle.progressed(version, fraction, step))


def fetch_failed(
    tx: Transaction, key: VersionKey, reason: str, message: str
) -> ModelVersion | None:
    version = tx.version(key)
    if version is None or not version.is_fetching:
        return None
    return tx.put_version(lifecycle.failed(version, reason, message))


def put_watch(tx: Transaction, watch: Watch) -> Watch:
    old = tx.watch(watch.name)
    new = old.asking(watch) if old is not None else watch
    return new if new == old else tx.put_watch(new)


def note_watch(
    tx: Transaction, looked: Watch, seen: Mapping[str, str], present: Collection[str], error: str
) -> Watch | None:
    old = tx.watch(looked.name)
    if old is None or (old.uri, old.model) != (looked.uri, looked.model):
        return None  # it was removed, or looks elsewhere now
    new = replace(old, error=error) if error else old.noted(seen, present)
    return old if new == old else tx.put_watch(new)


def drop_watch(tx: Transaction, name: str) -> bool:
    if tx.watch(name) is None:
        return False
    tx.drop_watch(name)
    return True


class SourceRecords:
    """The verbs as methods, each one transaction. They raise RegistryUnavailable."""

    def __init__(self, registry: Writer) -> None:
        self._registry = registry

    async def fetched(
        self, key: VersionKey, artifact: str, given: ServingSpec, imported: Imported | None
    ) -> ModelVersion | None:
        """The file of a version is in the store: it waits for an importer, or is READY with what
        was `imported` before. None: it is not being fetched any more.
        """
        return await self._registry.write(lambda tx: fetched(tx, key, artifact, given, imported))

    async def progressed(self, key: VersionKey, fraction: float, step: str) -> None:
        await self._registry.write(lambda tx: fetch_progressed(tx, key, fraction, step))

    async def failed(self, key: VersionKey, reason: str, message: str) -> ModelVersion | None:
        """None: it is not being fetched any more."""
        return await self._registry.write(lambda tx: fetch_failed(tx, key, reason, message))

    async def put_watch(self, watch: Watch) -> Watch:
        """Adds or replaces the watch of this name. What was seen stays, as `Watch.asking` says."""
        return await self._registry.write(lambda tx: put_watch(tx, watch))

    async def note_watch(
        self, looked: Watch, seen: Mapping[str, str], present: Collection[str], error: str = ""
    ) -> Watch | None:
        """Notes what a look found, or why it failed. None: there is no such watch any more."""
        return await self._registry.write(lambda tx: note_watch(tx, looked, seen, present, error))

    async def drop_watch(self, name: str) -> bool:
        """Removes a watch. Returns whether there was one."""
        return await self._registry.write(lambda tx: drop_watch(tx, name))

"""A control plane's backup of desired state in a file, from which an emptied store is restored.

JSON lines: a head with cluster id and revision, then versions, then wants. A thread writes the
whole file beside the old one, syncs it and renames it, and rests in between.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from control_plane.store import codec
from control_plane.store.alerts.alert_codec import decode_setting, encode_setting
from control_plane.store.rules import rule_codec
from control_plane.store.sources.watch_codec import decode_watch, encode_watch
from control_plane.types.desired import Desired
from control_plane.types.version import ModelVersion, VersionKey
from yolopool.server.clock import Clock

log = structlog.get_logger()

MIN_PAUSE_S = 2.0
# Writing takes at most this share of the time, however large the backup is.
MAX_WRITING_SHARE = 0.05
FORMAT = 1


class DesiredBackup:
    """Call `read` before `keep`, which does not return."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._on_file: Desired | None = None  # what is in the file
        self._kept: tuple[str, int, str] | None = None
        # A version is encoded once: of ten thousand mostly one has changed.
        self._lines: dict[VersionKey, tuple[ModelVersion, str]] = {}

    def read(self) -> Desired | None:
        """The backup, or None. A file that can't be read is set aside. Blocks."""
        try:
            with self._path.open(encoding="utf-8") as file:
                found = _parse(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("THE LOCAL COPY CAN'T BE READ", file=str(self._path), why=str(error))
            with suppress(OSError):  # the folder can't be written: the file stays
                self._path.replace(self._old)
            return None
        self._on_file = found
        return found

    def write(self, desired: Desired) -> int:
        """Replaces the file and returns its size in bytes. Blocks; raises OSError.

        A backup that says more than the store does is kept beside: the store is right, but someone
        may need the file.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._on_file is not None:
            self._keep_old(self._on_file, desired)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        # It has the hashes of keys, and every tenant's names: for this user alone.
        with open(part, "w", encoding="utf-8", opener=_private) as file:
            file.writelines(self._words(desired))
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        _sync_folder(self._path.parent)
        self._on_file = desired
        return size

    async def keep(self, is_loaded: Callable[[], bool], frozen: Callable[[], Desired]) -> None:
        """Writes the backup whenever desired state changed. Does not return."""
        while True:
            began = self._clock.monotonic()
            if is_loaded():
                await self.keep_now(frozen())
            took_s = self._clock.monotonic() - began
            await asyncio.sleep(max(MIN_PAUSE_S, took_s / MAX_WRITING_SHARE))

    async def keep_now(self, desired: Desired) -> None:
        """Writes the backup unless the file holds it. Logs every failure to write."""
        stands = (desired.cluster, desired.revision, desired.mark)
        if stands == self._kept:
            return
        try:
            await asyncio.to_thread(self.write, desired)
            self._kept = stands
        except OSError as error:
            log.error("the local copy can't be written", file=str(self._path), why=str(error))

    def _keep_old(self, old: Desired, new: Desired) -> None:
        if old.cluster != new.cluster:
            log.error(
                "THE STORE IS NOT THE ONE OF THE LOCAL COPY: the store is right",
                store=new.cluster,
                copy=old.cluster,
                set_aside=str(self._old),
            )
        elif why := says_less(new, old):
            log.warning("the local copy said more", why=why, set_aside=str(self._old))
        else:
            return
        with suppress(FileNotFoundError):
            part = self._old.with_name(f"{self._old.name}.part")
            with self._path.open("rb") as file, open(part, "wb", opener=_private) as copy:
                shutil.copyfileobj(file, copy)
            part.replace(self._old)

    @property
    def _old(self) -> Path:
        return self._path.with_name(f"{self._path.name}.old")

    def _words(self, desired: Desired) -> Iterator[str]:
        head = {
            "format": FORMAT,
            "cluster": desired.cluster,
            "revision": desired.revision,
            "mark": desired.mark,
            "versions": len(desired.versions),
            "wants": len(desired.wants),
            "cordons": dict(desired.cordons),
            "numbers": dict(desired.numbers),
            "api_keys": [codec.encode_api_key(key) for key in desired.api_keys.values()],
            "tenants": [codec.encode_tenant(one) for one in desired.tenants.values()],
            "aliases": [codec.encode_alias(one) for one in desired.aliases.values()],
            "rules": [rule_codec.encode_rule(one) for one in desired.rules.values()],
            "watches": [encode_watch(one) for one in desired.watches.values()],
            "alerts": [encode_setting(one) for one in desired.alerts.values()],
            "schedules": [codec.encode_schedule(plan) for plan in desired.schedules.values()],
        }
        yield json.dumps(head) + "\n"
        before, self._lines = self._lines, {}
        for key, version in desired.versions.items():
            known = before.get(key)
            if known is None or known[0] is not version:
                known = (version, codec.encode_version(version) + "\n")
            self._lines[key] = known
            yield known[1]
        for want in desired.wants.values():
            yield codec.encode_want(want) + "\n"


def says_less(new: Desired, old: Desired) -> str:
    """Why the new state may have lost something of the old one; empty: it has not."""
    if new.revision < old.revision:
        return f"the store went back from revision {old.revision} to {new.revision}"
    emptied = [
        name
        for name in (
            "versions",
            "schedules",
            "numbers",
            "api_keys",
            "tenants",
            "aliases",
            "rules",
            "watches",
            "alerts",
        )
        if getattr(old, name) and not getattr(new, name)
    ]
    return f"all {', '.join(emptied)} are gone" if emptied else ""


def _parse(lines: Iterator[str]) -> Desired:
    """Raises ValueError, KeyError or TypeError if the backup is not complete."""
    head = json.loads(next(lines, ""))
    if head["format"] != FORMAT:
        raise ValueError(f"it is of format {head['format']}, not {FORMAT}")
    versions = [codec.decode_version(next(lines, "")) for _ in range(head["versions"])]
    wants = [codec.decode_want(next(lines, "")) for _ in range(head["wants"])]
    schedules = [codec.decode_schedule(text) for text in head["schedules"]]
    # A release without keys, tenants, aliases, rules, watches or alerts wrote none.
    api_keys = [codec.decode_api_key(text) for text in head.get("api_keys", ())]
    tenants = [codec.decode_tenant(text) for text in head.get("tenants", ())]
    aliases = [codec.decode_alias(text) for text in head.get("aliases", ())]
    rules = [rule_codec.decode_rule(text) for text in head.get("rules", ())]
    watches = [decode_watch(text) for text in head.get("watches", ())]
    alerts = [decode_setting(text) for text in head.get("alerts", ())]
    return Desired(
        head["revision"],
        head["cluster"],
        {version.key: version for version in versions},
        {want.key: want for want in wants},
        head["cordons"],
        {schedule.name: schedule for schedule in schedules},
        head["numbers"],
        {key.id: key for key in api_keys},
        {tenant.name: tenant for tenant in tenants},
        {alias.key: alias for alias in aliases},
        {rule.pattern: rule for rule in rules},
        {watch.name: watch for watch in watches},
        {setting.key: setting for setting in alerts},
        head["mark"],
    )


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut once its folder is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private(path: str, flags: int) -> int:
    handle = os.open(path, flags, 0o600)
    os.fchmod(handle, 0o600)  # a leftover of before may be anyone's to read
    return handle

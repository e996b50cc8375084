"""Loads one set of models and releases another, all or nothing.

What was wanted before is remembered by the write that changes it, and comes back if the change
can't be made. No write is left half done by a caller who goes: a change is a task of its own,
which hears of it between its steps.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from control_plane.clock import Clock
from control_plane.events.recorder import EventRecorder
from control_plane.models.loading import Loader
from control_plane.store.registry import DesiredState
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.event import EventKind
from control_plane.types.policy import Placement
from control_plane.types.schedule import Changeover
from control_plane.types.version import VersionKey
from control_plane.view.catalogue import Catalogue
from control_plane.view.view import View
from yolopool.errors import (
    Cancelled,
    ChangeoverFailed,
    DeadlineExceeded,
    InvalidOption,
    LedgerFull,
    RegistryUnavailable,
    YolopoolError,
)
from yolopool.names import parse_ref

log = structlog.get_logger()

RESTORE_ATTEMPTS = 3
RESTORE_RETRY_S = 1.0
UNCHANGED = "Nothing was changed: what was wanted before is wanted again"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A change with its references looked up: `placements` are those to be set first."""

    wants: tuple[Want, ...]
    placements: dict[VersionKey, Placement]
    release: tuple[VersionKey, ...]

    @property
    def says(self) -> str:
        """What was done, for people."""
        loaded = ", ".join(str(want.key) for want in self.wants) or "nothing"
        return f"loaded {loaded}; released {', '.join(map(str, self.release)) or 'nothing'}"

    @property
    def keys(self) -> frozenset[VersionKey]:
        return frozenset((*(want.key for want in self.wants), *self.release))


def resolve(change: Changeover, catalogue: Catalogue, desired: Desired, now: float) -> Resolved:
    """What the references of a change mean now (Unix seconds). What is prepared is not released.

    Raises as `Catalogue.ready` of what is prepared, as `Catalogue.find` of what is released, and
    InvalidOption if a version is to be prepared twice.
    """
    wants: dict[VersionKey, Want] = {}
    placements: dict[VersionKey, Placement] = {}
    for one in change.prepare:
        key = catalogue.ready(parse_ref(one.model)).key
        if key in wants:
            raise InvalidOption(f"{one.model} is to be prepared twice: name {key} once")
        want = Want(key, one.replicas, one.pinned, WantSource.ADMIN, now)
        wants[key] = want.following(desired.wants.get(key))
        if one.placement is not None:
            placements[key] = one.placement
    release = dict.fromkeys(catalogue.find(parse_ref(ref)).key for ref in change.release)
    return Resolved(
        tuple(wants.values()), placements, tuple(key for key in release if key not in wants)
    )


@dataclass(frozen=True, slots=True)
class _Rollback:
    """What a change finds: wants of what it prepares (None: none) and of what it is to release,
    and where what it places might run.
    """

    prepared: Mapping[VersionKey, Want | None]
    released: Mapping[VersionKey, Want]
    placements: Mapping[VersionKey, Placement]

    def corrected(self, change: Resolved, held: Iterable[Want]) -> "_Rollback":
        """With what the store answered to the write: a view may lag behind it."""
        wants = {want.key: want for want in held}
        return replace(self, prepared={want.key: wants.get(want.key) for want in change.wants})


class Changeovers:
    """Those under way in this process; two that touch one version come after each other."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        loads: Loader,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self._recorder = recorder
        self._registry = registry
        self._view = view
        self._loads = loads
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], frozenset[VersionKey]] = {}
        self._gone: dict[asyncio.Task[None], asyncio.Event] = {}

    async def change(self, change: Changeover, deadline_s: float) -> Resolved:
        """Returns when all of it is so; deadline_s: monotonic.

        Raises as `resolve`, ChangeoverFailed with `model` and `reason` in its details,
        DeadlineExceeded, or RegistryUnavailable; what was wanted before is wanted again then.
        """
        resolved = self._resolve(change)
        while others := self.in_the_way(resolved.keys):
            await self._ended(others, deadline_s)
            resolved = self._resolve(change)
        gone = asyncio.Event()
        task = asyncio.create_task(self._perform(resolved, deadline_s, gone), name="changeover")
        self._under_way[task], self._gone[task] = resolved.keys, gone
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            raise
        except YolopoolError as error:
            self._tell(resolved, error.reason, error.message)
            raise
        self._tell(resolved, "", resolved.says)
        return resolved

    def _tell(self, change: Resolved, reason: str, message: str) -> None:
        """An event of each version, so that whoever looks for one finds it."""
        for key in sorted(change.keys):
            self._recorder.record(EventKind.CHANGEOVER, version=key, reason=reason, message=message)

    def in_the_way(self, keys: Iterable[VersionKey]) -> list[asyncio.Task[None]]:
        """Those under way that touch one of these versions."""
        return [task for task, held in self._under_way.items() if not held.isdisjoint(keys)]

    async def prepare(self, change: Resolved) -> tuple[Want, ...]:
        """Sets placements and wants of what is to be prepared; answers the wants there were."""
        for key, placement in change.placements.items():
            await self._place(key, placement)
        for want in change.wants:
            self._view.ask_again(want.key)
        held = await self._registry.change_wants(change.wants)
        self._view.change_wants(change.wants)
        return held

    async def release(self, keys: Sequence[VersionKey]) -> None:
        """Ends, in one step, what is wanted of these versions, be they kept as hot standbys."""
        versions = self._view.desired.versions
        standbys = [k for k in keys if k in versions and versions[k].given.residency.pins]
        await self._registry.change_wants((), keys, standbys)
        for key in keys:
            self._view.want_nowhere(key)
        self._view.change_wants((), keys, standbys)

    async def close(self) -> None:
        """Ends those under way as if their callers had gone."""
        for gone in self._gone.values():
            gone.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _resolve(self, change: Changeover) -> Resolved:
        return resolve(change, self._view.catalogue, self._view.desired, self._clock.unix())

    async def _ended(self, others: list[asyncio.Task[None]], deadline_s: float) -> None:
        left_s = max(0.0, deadline_s - self._clock.monotonic())
        _, open_ = await asyncio.wait(others, timeout=left_s)
        if open_:
            raise DeadlineExceeded(
                "time ran out waiting for another changeover of the same models: try again",
                details={"waited_for": "CHANGEOVER"},
            )

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task], self._gone[task]
        if not task.cancelled():
            task.exception()  # looked at here too: its caller may have gone

    # --- one change ---------------------------------------------------------------------------

    async def _perform(self, change: Resolved, deadline_s: float, gone: asyncio.Event) -> None:
        before = self._before(change)
        try:
            before = before.corrected(change, await self.prepare(change))
            await self._all_loaded(change.wants, deadline_s, gone)
            await self.release(change.release)
        except Exception as error:
            log.info("changeover failed: what was wanted before comes back", why=str(error))
            await self._restore(before)
            raise

    def _before(self, change: Resolved) -> _Rollback:
        desired = self._view.desired
        released = {key: desired.want(key) for key in change.release}
        return _Rollback(
            {want.key: desired.wants.get(want.key) for want in change.wants},
            {key: want for key, want in released.items() if want is not None},
            {key: desired.versions[key].given.placement for key in change.placements},
        )

    async def _all_loaded(
        self, wants: Sequence[Want], deadline_s: float, gone: asyncio.Event
    ) -> None:
        """Returns when all are loaded at one time; raises Cancelled when the caller has gone."""
        while True:
            await self._each_loaded(wants, deadline_s, gone)
            if all([self._is_loaded(want) for want in wants]):
                return

    async def _each_loaded(
        self, wants: Sequence[Want], deadline_s: float, gone: asyncio.Event
    ) -> None:
        waits = [asyncio.create_task(self._loaded(want, deadline_s)) for want in wants]
        leaving = asyncio.create_task(gone.wait())
        every = asyncio.gather(*waits)
        try:
            ends: list[asyncio.Future[Any]] = [every, leaving]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not every.done():
                raise Cancelled("the caller has gone: nothing was changed")
            await every
        finally:
            for task in (leaving, *waits):
                task.cancel()
            await asyncio.gather(leaving, every, *waits, return_exceptions=True)

    async def _loaded(self, want: Want, deadline_s: float) -> None:
        try:
            await self._loads.loaded(want, deadline_s)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(
                f"{error.message}. {UNCHANGED}",
                details={**error.details, "model": str(want.key)},
            ) from error
        except YolopoolError as error:
            raise _failed(want.key, error) from error

    def _is_loaded(self, want: Want) -> bool:
        try:
            if self._loads.is_loaded(want):
                return True
        except YolopoolError as error:
            raise _failed(want.key, error) from error
        if self._is_less(want):
            why = "it had to leave again, to make room for others: pin it, or add a worker"
            raise _failed(want.key, LedgerFull(why))
        return False

    async def _restore(self, before: _Rollback) -> None:
        """Brings back what was wanted; a store that is away is asked again for a while."""
        for attempt in range(RESTORE_ATTEMPTS):
            try:
                await asyncio.sleep(RESTORE_RETRY_S if attempt else 0.0)
                await self._put_back(before)
                return
            except RegistryUnavailable as error:
                log.error(
                    "what was wanted before a changeover is not brought back yet",
                    models=[str(key) for key in before.prepared],
                    attempts_left=RESTORE_ATTEMPTS - attempt - 1,
                    why=error.message,
                )

    async def _put_back(self, before: _Rollback) -> None:
        put = [want for want in before.prepared.values() if want is not None]
        # What was to be released may have had to make room for the new.
        put += [want for want in before.released.values() if self._is_less(want)]
        drop = [key for key, want in before.prepared.items() if want is None]
        await self._registry.change_wants(put, drop)
        there = self._view.desired.versions
        for key in drop:
            self._view.want_nowhere(key)
        self._view.change_wants([want for want in put if want.key in there], drop)
        for key, placement in before.placements.items():
            await self._place(key, placement)

    def _is_less(self, want: Want) -> bool:
        """Whether less is wanted of a version now."""
        now = self._view.desired.want(want.key)
        return now is None or now.replicas < want.replicas

    async def _place(self, key: VersionKey, placement: Placement) -> None:
        version = await self._registry.set_placement(key, placement)
        if version is not None:
            self._view.put_version(version)


def _failed(key: VersionKey, error: YolopoolError) -> ChangeoverFailed:
    return ChangeoverFailed(
        f"{key} can't be loaded: {error.reason}: {error.message}. {UNCHANGED}",
        retry_after_s=error.retry_after_s,
        details={"model": str(key), "reason": error.reason},
    )

"""Loads one set of models and releases another, all or nothing.

The write that changes the wants returns the earlier wants; they are restored if the change fails. A
changeover is a task of its own: a caller that leaves cancels it between two writes, never within
one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.models.loading import Loader
from control_plane.scheduling import explanation
from control_plane.store.registry import DesiredState
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.event import EventKind
from control_plane.types.policy import Placement
from control_plane.types.schedule import Changeover
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.view.catalogue import Catalogue
from control_plane.view.reflector import Refresh
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
from yolopool.names import ModelRef, parse_ref
from yolopool.server.clock import Clock

log = structlog.get_logger()

RESTORE_ATTEMPTS = 3
RESTORE_RETRY_S = 1.0
UNCHANGED = "Nothing was changed"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A changeover whose references are resolved; its `placements` are set before its wants."""

    wants: tuple[Want, ...]
    placements: dict[VersionKey, Placement]
    release: tuple[VersionKey, ...]

    @property
    def summary(self) -> str:
        """What it does, for logs and events."""
        loaded = ", ".join(str(want.key) for want in self.wants) or "nothing"
        return f"loaded {loaded}; released {', '.join(map(str, self.release)) or 'nothing'}"

    @property
    def keys(self) -> frozenset[VersionKey]:
        return frozenset((*(want.key for want in self.wants), *self.release))


def resolve(change: Changeover, catalogue: Catalogue, desired: Desired, now: float) -> Resolved:
    """Resolves the references of a changeover. What it prepares is not released. now: Unix seconds.

    Raises as `Catalogue.ready` for what it prepares, as `Catalogue.find` for what it releases, and
    InvalidOption if it prepares a version twice.
    """
    wants: dict[VersionKey, Want] = {}
    placements: dict[VersionKey, Placement] = {}
    for load in change.prepare:
        for key in _ready(load.model, catalogue):
            if key in wants:
                raise InvalidOption(f"{load.model} is in prepare twice: name {key} once")
            want = Want(key, load.replicas, load.pinned, WantSource.ADMIN, now)
            wants[key] = want.following(desired.wants.get(key))
            if load.placement is not None:
                placements[key] = load.placement
    release = dict.fromkeys(
        version.key for ref in change.release for version in catalogue.meant(parse_ref(ref))
    )
    return Resolved(
        tuple(wants.values()), placements, tuple(key for key in release if key not in wants)
    )


def _ready(reference: str, catalogue: Catalogue) -> list[VersionKey]:
    """The READY versions that a reference means: of an alias all its targets."""
    ref = parse_ref(reference)
    if ref.alias is None:
        return [catalogue.ready(ref).key]
    return [
        catalogue.ready(ModelRef(ref.name, version.key.number)).key
        for version in catalogue.meant(ref)
    ]


@dataclass(frozen=True, slots=True)
class _Rollback:
    """The state before a changeover: wants of what it prepares (None: no want) and of what it
    releases, and the placements that it replaces.
    """

    prepared: Mapping[VersionKey, Want | None]
    released: Mapping[VersionKey, Want]
    placements: Mapping[VersionKey, Placement]

    def corrected(self, change: Resolved, held: Iterable[Want]) -> "_Rollback":
        """With the earlier wants that the store returned: a view may lag behind it."""
        wants = {want.key: want for want in held}
        return replace(self, prepared={want.key: wants.get(want.key) for want in change.wants})


class Changeovers:
    """The changeovers of this process; two that touch the same version run one after the other."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        loader: Loader,
        recorder: EventRecorder,
        clock: Clock,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        """`snapshot` returns what the next plan will look at."""
        self._snapshot = snapshot
        self._recorder = recorder
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._loader = loader
        self._clock = clock
        self._running: dict[asyncio.Task[None], frozenset[VersionKey]] = {}
        self._cancels: dict[asyncio.Task[None], asyncio.Event] = {}

    async def change(self, change: Changeover, deadline_s: float) -> Resolved:
        """Returns when all is loaded and released; deadline_s: monotonic.

        Raises as `resolve`, ChangeoverFailed with `model` and `reason` in its details,
        DeadlineExceeded, or RegistryUnavailable; the earlier wants are restored then.
        """
        resolved = self._resolve(change)
        while others := self.in_the_way(resolved.keys):
            await self._ended(others, deadline_s)
            resolved = self._resolve(change)
        cancel = asyncio.Event()
        task = asyncio.create_task(self._perform(resolved, deadline_s, cancel), name="changeover")
        self._running[task], self._cancels[task] = resolved.keys, cancel
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancel.set()
            raise
        except YolopoolError as error:
            self._recorder.record(
                EventKind.CHANGEOVER,
                version=_model_of(error),
                reason=error.reason,
                message=error.message,
            )
            raise
        # For each version, so that a search by version finds it.
        for key in sorted(resolved.keys):
            self._recorder.record(EventKind.CHANGEOVER, version=key, message=resolved.summary)
        return resolved

    def in_the_way(self, keys: Iterable[VersionKey]) -> list[asyncio.Task[None]]:
        """The running changeovers that touch one of these versions."""
        return [task for task, held in self._running.items() if not held.isdisjoint(keys)]

    def refuse_what_never_fits(self, change: Resolved) -> None:
        """Raises ChangeoverFailed if what is prepared has no room together on any terms, before
        other models leave for it in vain.
        """
        blocked = explanation.never_fits(
            self._snapshot(), change.wants, change.placements, self._clock.monotonic()
        )
        if blocked is not None:
            raise _failed(blocked.key, blocked.as_error())

    async def prepare(self, change: Resolved) -> tuple[Want, ...]:
        """Sets placements and wants of what the changeover prepares; returns the earlier wants. The
        caller refreshes the view.
        """
        for key, placement in change.placements.items():
            await self._registry.set_placement(key, placement)
        if change.placements:
            await self._refresh()  # so that no plan tries again by the earlier placement
        for want in change.wants:
            self._view.ask_again(want.key)
        return await self._registry.change_wants(change.wants)

    async def release(self, keys: Sequence[VersionKey]) -> None:
        """Ends the wants of these versions, and their hot standbys, in one write. The caller
        refreshes the view.
        """
        versions = self._view.desired.versions
        standbys = [k for k in keys if k in versions and versions[k].given.residency.pins]
        await self._registry.change_wants((), keys, standbys)
        for key in keys:
            self._view.want_nowhere(key)

    async def close(self) -> None:
        """Cancels all, as if their callers had left."""
        for cancel in self._cancels.values():
            cancel.set()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _resolve(self, change: Changeover) -> Resolved:
        return resolve(change, self._view.catalogue, self._view.desired, self._clock.unix())

    async def _ended(self, others: list[asyncio.Task[None]], deadline_s: float) -> None:
        left_s = max(0.0, deadline_s - self._clock.monotonic())
        _, running = await asyncio.wait(others, timeout=left_s)
        if running:
            raise DeadlineExceeded(
                "time ran out waiting for another changeover of the same models: try again",
                details={"waited_for": "CHANGEOVER"},
            )

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._running[task], self._cancels[task]
        if not task.cancelled():
            task.exception()  # retrieved here too: its caller may have left

    # --- one change ---------------------------------------------------------------------------

    async def _perform(self, change: Resolved, deadline_s: float, cancel: asyncio.Event) -> None:
        self.refuse_what_never_fits(change)
        before = self._before(change)
        try:
            before = before.corrected(change, await self.prepare(change))
            await self._refresh()
            await self._all_loaded(change.wants, deadline_s, cancel)
            await self.release(change.release)
            await self._refresh()
        except Exception as error:
            log.info("changeover failed: the earlier wants are restored", why=str(error))
            await self._roll_back(before)
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
        self, wants: Sequence[Want], deadline_s: float, cancel: asyncio.Event
    ) -> None:
        """Returns when all are loaded at the same time; raises Cancelled when the caller left."""
        while True:
            await self._each_loaded(wants, deadline_s, cancel)
            if all([self._is_loaded(want) for want in wants]):
                return

    async def _each_loaded(
        self, wants: Sequence[Want], deadline_s: float, cancel: asyncio.Event
    ) -> None:
        waits = [asyncio.create_task(self._loaded(want, deadline_s)) for want in wants]
        cancelled = asyncio.create_task(cancel.wait())
        every = asyncio.gather(*waits)
        try:
            ends: list[asyncio.Future[Any]] = [every, cancelled]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not every.done():
                raise Cancelled("the caller left: nothing was changed")
            await every
        finally:
            for task in (cancelled, *waits):
                task.cancel()
            await asyncio.gather(cancelled, every, *waits, return_exceptions=True)

    async def _loaded(self, want: Want, deadline_s: float) -> None:
        try:
            await self._loader.loaded(want, deadline_s)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(
                f"{error.message}. {UNCHANGED}",
                details={**error.details, "model": str(want.key)},
            ) from error
        except YolopoolError as error:
            raise _failed(want.key, error) from error

    def _is_loaded(self, want: Want) -> bool:
        try:
            if self._loader.is_loaded(want):
                return True
        except YolopoolError as error:
            raise _failed(want.key, error) from error
        if self._is_less(want):
            why = "it was evicted again to make room for others: pin it, or add a worker"
            raise _failed(want.key, LedgerFull(why))
        return False

    async def _roll_back(self, before: _Rollback) -> None:
        """Restores the earlier wants; retries for a while if the store does not answer."""
        for attempt in range(RESTORE_ATTEMPTS):
            try:
                await asyncio.sleep(RESTORE_RETRY_S if attempt else 0.0)
                await self._put_back(before)
                return
            except RegistryUnavailable as error:
                log.error(
                    "the wants before a changeover are not restored yet",
                    models=[str(key) for key in before.prepared],
                    attempts_left=RESTORE_ATTEMPTS - attempt - 1,
                    why=error.message,
                )

    async def _put_back(self, before: _Rollback) -> None:
        put = [want for want in before.prepared.values() if want is not None]
        # A version to release may have been evicted already, to make room for the new ones.
        put += [want for want in before.released.values() if self._is_less(want)]
        drop = [key for key, want in before.prepared.items() if want is None]
        await self._registry.change_wants(put, drop)
        for key in drop:
            self._view.want_nowhere(key)
        for key, placement in before.placements.items():
            await self._registry.set_placement(key, placement)
        await self._refresh()

    def _is_less(self, want: Want) -> bool:
        """Whether fewer replicas of the version are wanted now."""
        now = self._view.desired.want(want.key)
        return now is None or now.replicas < want.replicas


def _model_of(error: YolopoolError) -> VersionKey | None:
    """The version that a changeover failed for, if it was one."""
    name, _, number = error.details.get("model", "").rpartition("@")
    return VersionKey(name, int(number)) if name else None


def _failed(key: VersionKey, error: YolopoolError) -> ChangeoverFailed:
    return ChangeoverFailed(
        f"{key} can't be loaded: {error.reason}: {error.message}. {UNCHANGED}",
        retry_after_s=error.retry_after_s,
        details={"model": str(key), "reason": error.reason},
    )

"""Ensures that a version is loaded and waits for it: on a miss of Detect, and for administrators.

A miss is single-flight: one write sets the want, however many callers wait for the version. If
another control plane leads, each caller asks it: it sets the want and reports what blocks it.
Nobody waits past a deadline, and a DeadlineExceeded names what the caller waited for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TypeVar

from control_plane.leader.client import LeaderClient, LeaderLost
from control_plane.store.registry import DesiredState
from control_plane.types.desired import Want, WantSource
from control_plane.types.version import VersionKey
from control_plane.types.worker import Replica
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from control_plane.view.waiters import ANY
from yolopool.errors import DeadlineExceeded, ModelNotFound, NoWorker, YolopoolError
from yolopool.server.clock import Clock
from yolopool.vocabulary import ReplicaState

Answer = TypeVar("Answer")
# Before the view is refreshed again, if the store failed after a write.
REFRESH_RETRY_S = 0.5


class Loader:
    """`no_worker_grace_s`: how long a caller waits for a worker to join when none is live."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        leader_client: LeaderClient,
        clock: Clock,
        no_worker_grace_s: float,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._leader_client = leader_client
        self._clock = clock
        self._grace_s = no_worker_grace_s
        self._flights: dict[VersionKey, asyncio.Task[None]] = {}

    async def ensure_loaded(
        self,
        key: VersionKey,
        ready: Callable[[], Answer | None],
        deadline_s: float,
        here: bool = False,
    ) -> Answer:
        """Sets a want for a version, and returns what `ready` returns once it is not None.

        `ready` may raise. Raises NoWorker, DeadlineExceeded, ModelNotFound, RegistryUnavailable, or
        the leader's refusal. deadline_s: monotonic. `here`: do not ask the leader.
        """
        while True:
            await self._within(self._wait_for_worker(), deadline_s, key)
            asked = None if here else self._ask(key, deadline_s)
            try:
                if asked is None:
                    await self._within(self._want(key), deadline_s, key)
                look = partial(self._state, key, ready, asked)
                left_s = deadline_s - self._clock.monotonic()
                found = await self._view.waiters.until(key, look, left_s)
            finally:
                if asked is not None:
                    asked.cancel()
                    await asyncio.gather(asked, return_exceptions=True)
            if found is None:
                raise self.timed_out(key)
            answer, again = found
            if not again and answer is not None:
                return answer
            # A leader that can't be reached finds the want in the store.
            here = here or (asked is not None and _is_lost(asked))

    def _ask(self, key: VersionKey, deadline_s: float) -> asyncio.Task[None] | None:
        """Asks the leader, if it is another process; its reply wakes the version's waiters."""
        address = self._leader_client.leader()
        if not address:
            return None
        left_s = deadline_s - self._clock.monotonic()
        asked = asyncio.create_task(
            self._leader_client.want(address, key, left_s), name=f"ask {key}"
        )
        asked.add_done_callback(lambda _: self._view.waiters.wake(key))
        return asked

    def _state(
        self,
        key: VersionKey,
        ready: Callable[[], Answer | None],
        asked: asyncio.Task[None] | None,
    ) -> tuple[Answer | None, bool] | None:
        """(answer, False); (None, True) if the want must be set again; None to wait on."""
        answer = ready()
        if answer is not None:
            return answer, False
        if key not in self._view.desired.versions:
            raise ModelNotFound(f"{key} was deleted while it was being loaded")
        if asked is not None and not asked.done():
            return None
        if asked is not None and (error := asked.exception()) is not None:
            if isinstance(error, LeaderLost):
                return None, True
            raise error
        # A release to make room ended the want, or the last worker left: start over.
        if key not in self._view.desired.wants or not self._view.has_live_worker():
            return None, True
        return None

    async def load(self, want: Want, wait: bool, deadline_s: float) -> None:
        """Sets an administrator's want; with `wait` returns when it is met, see `is_loaded`.

        Raises as `ensure_loaded`, and what the plan finally refuses (ModelTooLarge, LedgerFull,
        LoadFailed).
        """
        self._view.ask_again(want.key)
        if await self._registry.want(want) is None:
            raise ModelNotFound(f"{want.key} does not exist any more")
        await self._refresh()
        if wait:
            await self.loaded(want, deadline_s)

    async def loaded(self, want: Want, deadline_s: float) -> None:
        """Returns when a want that is set is met; raises as `load`."""
        await self._within(self._wait_for_worker(), deadline_s, want.key)
        ready = await self._view.waiters.until(
            want.key,
            lambda: self.is_loaded(want) or None,
            deadline_s - self._clock.monotonic(),
        )
        if not ready:
            raise self.timed_out(want.key)

    def is_loaded(self, want: Want) -> bool:
        """Whether enough replicas are, or were, HOT; raises what the last plan finally refused."""
        if sum(_was_hot(r, want) for _, r in self._view.replicas(want.key)) >= want.replicas:
            return True
        blocked = self._view.waits.get(want.key)
        if blocked is not None and blocked.final:
            raise blocked.as_error()
        return False

    async def unload(
        self, key: VersionKey, wait: bool, deadline_s: float, force: bool = False
    ) -> None:
        """Ends a want; with `wait` returns when no worker has the version. `force`: its open
        requests are rejected.
        """
        await self._registry.forget(key)
        self._view.want_nowhere(key)
        await self._refresh()
        if force:
            self._view.force_out(key)
        if wait:
            await self.unloaded(key, deadline_s)

    async def unloaded(self, key: VersionKey, deadline_s: float) -> None:
        """Returns when no worker has a version any more. Raises DeadlineExceeded."""
        gone = await self._view.waiters.until(
            key,
            lambda: True if not self._view.replicas(key) else None,
            deadline_s - self._clock.monotonic(),
        )
        if not gone:
            raise DeadlineExceeded(
                f"{key} still has open requests: it is released after the last one"
            )

    async def close(self) -> None:
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    # --- a miss -----------------------------------------------------------------------------

    async def _want(self, key: VersionKey) -> None:
        """One write for all callers who miss this version now; it goes on if a caller leaves."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._write_want(key), name=f"want {key}")
            self._flights[key] = flight
            flight.add_done_callback(lambda ended: self._written(key, ended))
        await asyncio.shield(flight)

    def _written(self, key: VersionKey, flight: asyncio.Task[None]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            # Retrieved here too: every caller may have left before it failed.
            flight.exception()

    async def _write_want(self, key: VersionKey) -> None:
        now = self._clock.unix()
        want = Want(key, replicas=1, pinned=False, source=WantSource.MISS, since_unix_s=now)
        old = self._view.desired.wants.get(key)
        if old is not None:
            blocked = self._view.waits.get(key)
            if blocked is None or blocked.reason != "LEDGER_FULL" or old.pinned:
                return  # it is being loaded, or blocked by something else than memory
            # A want that is older than all that is loaded preempts nothing: it counts from now on.
            held = await self._registry.renew(key, now)
        else:
            held = await self._registry.want(want)
        if held is None:
            raise ModelNotFound(f"{key} does not exist any more")
        # A caller that did not find the want in the view would set it again.
        while not await self._refresh():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(REFRESH_RETRY_S)

    async def _wait_for_worker(self) -> None:
        if self._view.has_live_worker():
            return
        there = await self._view.waiters.until(
            ANY, lambda: self._view.has_live_worker() or None, self._grace_s
        )
        if not there:
            raise NoWorker(
                f"no worker is connected, and none joined within {self._grace_s:g} s: start one",
                retry_after_s=self._grace_s,
            )

    async def _within(
        self, step: Coroutine[object, object, None], deadline_s: float, key: VersionKey
    ) -> None:
        try:
            async with asyncio.timeout(deadline_s - self._clock.monotonic()):
                await step
        except TimeoutError:
            raise self.timed_out(key) from None

    def timed_out(self, key: VersionKey) -> YolopoolError:
        """DeadlineExceeded that names what the caller waited for."""
        if not self._view.has_live_worker():
            return DeadlineExceeded(f"time ran out waiting for a worker to load {key}: start one")
        if not self._view.registry_available:
            return DeadlineExceeded(
                f"time ran out: {key} is not loaded before the registry answers again: check its "
                "server, its memory and its disk",
                details={"waited_for": "REGISTRY"},
            )
        blocked = self._view.waits.get(key)
        if blocked is not None:
            return DeadlineExceeded(
                f"time ran out: {blocked.why}", details={"waited_for": blocked.reason}
            )
        return DeadlineExceeded(
            f"time ran out while {key} was being loaded (the load goes on): try again, or allow "
            "more time",
            details={"waited_for": "LOAD"},
        )


def _is_lost(asked: asyncio.Task[None]) -> bool:
    return asked.done() and not asked.cancelled() and isinstance(asked.exception(), LeaderLost)


def _was_hot(replica: Replica, want: Want) -> bool:
    """Whether a load is done. A replica that shares its device by turns may have left it again
    before a report showed it HOT; a pinned one stays.
    """
    if want.pinned:
        return replica.state is ReplicaState.HOT and replica.pinned
    measured = replica.state is ReplicaState.WARM and replica.footprint is not None
    return measured or replica.state is ReplicaState.HOT

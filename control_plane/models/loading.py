"""Makes sure that a version is loaded, and waits for it: misses of Detect, and admin loads.

A miss is single-flight: however many callers wait for a version, one of them writes the want. Where
another control plane decides, each of them asks that one, which writes it and says what hinders it.
Nobody waits past a deadline, and each who waited in vain hears what for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TypeVar

from control_plane.clock import Clock
from control_plane.leader.client import LeaderClient, LeaderLost
from control_plane.store.registry import DesiredState
from control_plane.types.command import error_of
from control_plane.types.desired import Want, WantSource
from control_plane.types.version import VersionKey
from control_plane.types.worker import Replica
from control_plane.view.view import View
from control_plane.view.waiters import ANY
from yolopool.errors import DeadlineExceeded, ModelNotFound, NoWorker, YolopoolError
from yolopool.vocabulary import ReplicaState

Answer = TypeVar("Answer")


class Loader:
    """`no_worker_grace_s`: how long a caller waits for a worker to (re)appear when none is live."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        leader_client: LeaderClient,
        clock: Clock,
        no_worker_grace_s: float,
    ) -> None:
        self._registry = registry
        self._view = view
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
        """Wants a version that is nowhere; returns what `ready` answers once it is not None.

        `ready` may raise. Raises NoWorker, DeadlineExceeded, ModelNotFound, RegistryUnavailable or
        what the one that decides refuses it with. deadline_s: monotonic. `here`: asks no other.
        """
        while True:
            await self._within(self._worker_there(), deadline_s, key)
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
            # Of a holder that can't be asked, the store asks.
            here = here or (asked is not None and _is_lost(asked))

    def _ask(self, key: VersionKey, deadline_s: float) -> "asyncio.Task[None] | None":
        """Asks the one that decides, if it is another; its word wakes who waits for the version."""
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
        asked: "asyncio.Task[None] | None",
    ) -> tuple[Answer | None, bool] | None:
        """(answer, False), (None, True) if it must be wanted again, or None: go on waiting."""
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
        # Its want went with a release for room, or its last worker did: begin again.
        if key not in self._view.desired.wants or not self._view.has_live_worker():
            return None, True
        return None

    async def load(self, want: Want, wait: bool, deadline_s: float) -> None:
        """Sets an admin's want; with `wait` returns when it was HOT on so many workers, if it
        is pinned when it stays so.

        Raises as `serve`, and what the plan says can't be done (ModelTooLarge, LedgerFull,
        LoadFailed).
        """
        self._view.ask_again(want.key)
        held = await self._registry.want(want)
        if held is None:
            raise ModelNotFound(f"{want.key} does not exist any more")
        self._view.put_want(held)
        if wait:
            await self.loaded(want, deadline_s)

    async def loaded(self, want: Want, deadline_s: float) -> None:
        """Returns when a want that is set was HOT on so many workers; raises as `load`."""
        await self._within(self._worker_there(), deadline_s, want.key)
        ready = await self._view.waiters.until(
            want.key,
            lambda: self.is_loaded(want) or None,
            deadline_s - self._clock.monotonic(),
        )
        if not ready:
            raise self.timed_out(want.key)

    def is_loaded(self, want: Want) -> bool:
        """Whether a want is met now; raises what the last plan says can't be done."""
        if sum(_was_hot(r, want) for _, r in self._view.replicas(want.key)) >= want.replicas:
            return True
        blocked = self._view.waits.get(want.key)
        if blocked is not None and blocked.final:
            raise error_of(blocked)
        return False

    async def unload(
        self, key: VersionKey, wait: bool, deadline_s: float, force: bool = False
    ) -> None:
        """Forgets a want; with `wait` returns when the version is nowhere. `force`: its open
        requests are refused.
        """
        await self._registry.forget(key)
        self._view.want_nowhere(key)
        self._view.drop_want(key)
        if force:
            self._view.force_out(key)
        if not wait:
            return
        gone = await self._view.waiters.until(
            key,
            lambda: True if not self._view.replicas(key) else None,
            deadline_s - self._clock.monotonic(),
        )
        if not gone:
            raise DeadlineExceeded(f"{key} has open requests: it is released behind the last")

    async def close(self) -> None:
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    # --- a miss -----------------------------------------------------------------------------

    async def _want(self, key: VersionKey) -> None:
        """One write for all who miss this version now; a caller who leaves ends it for nobody."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._write_want(key), name=f"want {key}")
            self._flights[key] = flight
            flight.add_done_callback(lambda ended: self._written(key, ended))
        await asyncio.shield(flight)

    def _written(self, key: VersionKey, flight: asyncio.Task[None]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            # Looked at here too: every caller may have left before it failed.
            flight.exception()

    async def _write_want(self, key: VersionKey) -> None:
        now = self._clock.unix()
        want = Want(key, replicas=1, pinned=False, source=WantSource.MISS, since_unix_s=now)
        old = self._view.desired.wants.get(key)
        if old is not None:
            blocked = self._view.waits.get(key)
            if blocked is None or blocked.reason != "LEDGER_FULL" or old.pinned:
                return  # it is being loaded, or what hinders it is not room
            # An old want that found no room may be older than all that is loaded: renew its age.
            held = await self._registry.renew(key, now)
        else:
            held = await self._registry.want(want)
        if held is None:
            raise ModelNotFound(f"{key} does not exist any more")
        self._view.put_want(held)

    async def _worker_there(self) -> None:
        if self._view.has_live_worker():
            return
        there = await self._view.waiters.until(
            ANY, lambda: self._view.has_live_worker() or None, self._grace_s
        )
        if not there:
            raise NoWorker(
                f"no worker is connected, and none came within {self._grace_s:g} s: start one",
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
        """Says what the caller waited for."""
        if not self._view.has_live_worker():
            return DeadlineExceeded(f"time ran out waiting for a worker to load {key}: start one")
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


def _is_lost(asked: "asyncio.Task[None]") -> bool:
    return asked.done() and not asked.cancelled() and isinstance(asked.exception(), LeaderLost)


def _was_hot(replica: Replica, want: Want) -> bool:
    """Whether a load is done: a replica that takes turns with others may have left the device
    again before anyone saw it there. One that is to be pinned is there to stay.
    """
    if want.pinned:
        return replica.state is ReplicaState.HOT and replica.pinned
    measured = replica.state is ReplicaState.WARM and replica.footprint is not None
    return measured or replica.state is ReplicaState.HOT

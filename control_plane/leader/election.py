"""Which control plane leads: takes, renews and loses the registry's lease, and holds its token.

Only the leader plans and commands workers, under a fencing token that workers check. A leader that
cannot renew its lease stops before the store gives it to another.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import structlog

from control_plane.store.registry import Registry
from control_plane.types.lease import FencingToken, Leader
from control_plane.view.view import View
from yolopool.errors import RegistryRefusesWrites, RegistryUnavailable, StaleToken
from yolopool.server.clock import Clock

log = structlog.get_logger()

Answer = TypeVar("Answer")


class LeaderElection:
    """`name` is this control plane's in the lease, which lasts `lease_s`; `gather_s` is how long
    a new leader waits for known workers to call. One task campaigns; anyone may read the token.
    `refused` is called once in the leader when the store begins to refuse writes.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        view: View,
        clock: Clock,
        lease_s: float = 3.0,
        gather_s: float = 6.0,
        refused: Callable[[RegistryRefusesWrites], None] = lambda _: None,
    ) -> None:
        self._name = name
        self.address = ""  # where other control planes reach this one; known once it listens
        self._registry = registry
        self._view = view
        self._clock = clock
        self._lease_s = lease_s
        self._gather_s = gather_s
        self._refused = refused
        self._token: FencingToken | None = None
        self._renewed_s = 0.0
        self._began_s = clock.monotonic()

    @property
    def is_leader(self) -> bool:
        return self.token is not None

    @property
    def left_s(self) -> float:
        """Until the lease of this control plane ends; 0: it has none."""
        if self._token is None:
            return 0.0
        return max(0.0, self._renewed_s + self._lease_s - self._clock.monotonic())

    @property
    def token(self) -> FencingToken | None:
        """The token of the lease while this control plane leads, else None.

        A process that was suspended for longer than its lease must campaign before it acts again.
        """
        return None if self._has_expired() else self._token

    @property
    def acting_token(self) -> FencingToken | None:
        """The token under which this process may command workers now; None: it does not lead, or
        still waits for known workers to call.
        """
        return self.token if self.has_gathered() else None

    async def expect_workers(self) -> None:
        """From now on the workers on record are waited for; without a record, as long as it takes
        any of them to call.
        """
        self._began_s = self._clock.monotonic()
        try:
            recorded = await self._registry.workers()
        except RegistryUnavailable:
            log.info("the recorded workers can't be read: they will join by themselves")
            self._view.expected = None
            return
        if self._view.expected is not None:
            self._view.expected = frozenset(worker.id for worker in recorded)

    def has_gathered(self) -> bool:
        """Whether the workers on record have called, or had the time to.

        Without this wait a restarted control plane would load elsewhere what they hold.
        """
        expected = self._view.expected
        if expected is not None and expected <= self._view.workers.keys():
            return True
        return self._clock.monotonic() - self._began_s >= self._gather_s

    async def campaign(self) -> FencingToken | None:
        """Takes or renews the lease as needed; None: another control plane leads.

        Raises RegistryUnavailable.
        """
        return await self.bounded(self._campaign())

    async def bounded(self, step: Coroutine[object, object, Answer]) -> Answer:
        """A step against the store, which has half a lease: the leader must notice a store that
        hangs before its lease ends. Raises RegistryUnavailable.
        """
        try:
            async with asyncio.timeout(self._lease_s / 2):
                return await step
        except TimeoutError as error:
            raise RegistryUnavailable(
                f"the registry did not answer in {self._lease_s / 2:g} s: check its server"
            ) from error

    def deposed(self, error: StaleToken) -> None:
        """A store or worker refused the token: another control plane leads."""
        log.warning("another control plane leads now", message=error.message)
        self._drop_token()

    def registry_lost(self, error: RegistryUnavailable) -> None:
        """The store is away: this control plane leads on until its lease has run out."""
        if self._view.registry_writable:
            log.error("registry lost: serving goes on, nothing is moved", message=error.message)
            if isinstance(error, RegistryRefusesWrites) and self._token is not None:
                self._refused(error)
        self._view.registry_writable = False
        if self._has_expired():
            self._drop_token()
            self._view.set_leader(None)

    async def resign(self) -> None:
        """Gives the lease up, so that another takes it at once. Raises RegistryUnavailable."""
        if self._token is not None:
            await self._registry.drop_lease(self._token)
            self._token = None

    async def _campaign(self) -> FencingToken | None:
        now = self._clock.monotonic()
        highest = self._view.highest_token
        if self._token is not None and (highest is None or highest <= self._token):
            if now - self._renewed_s < self._lease_s / 3:
                return self._token
            if await self._registry.keep_lease(self._token, self._lease_s):
                self._has_registry(now)
                return self._token
        # The next token is above our own too: a store that lost it would give it out again.
        self._view.apply_token(self._token)
        self._token = await self._registry.take_lease(
            self._name, self._lease_s, self._view.highest_token, self.address
        )
        self._has_registry(now)
        if self._token is not None:
            log.info("this control plane leads", token=str(self._token))
            self._view.set_leader(Leader(self._name, self._token, self.address))
        else:
            self._view.set_leader(await self._registry.leader())
        return self._token

    def _has_registry(self, now: float) -> None:
        # Counted from before the call: the store's lease can't end before ours does.
        self._renewed_s = now
        self._view.registry_writable = True

    def _has_expired(self) -> bool:
        return self._clock.monotonic() - self._renewed_s >= self._lease_s

    def _drop_token(self) -> None:
        self._view.apply_token(self._token)
        self._token = None

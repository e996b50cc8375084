"""What operators order of aliases: set, promote, roll back, delete, and wait for it.

An order is one write that says what it found (compare and set). Whatever must be loaded first is
left to the switch controller of the leader, which goes on if the caller leaves.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from control_plane.events.recorder import EventRecorder
from control_plane.rollout.switch import Step, begun, ended, given_up
from control_plane.rollout.switch_controller import in_words, standing_of, tell, waits_for
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.registry import DesiredState
from control_plane.types.event import EventKind
from control_plane.types.rollout.alias import (
    Alias,
    AliasChange,
    AliasKey,
    ChangeKind,
    Switch,
    Targets,
)
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import (
    AliasChanged,
    DeadlineExceeded,
    NothingToRollBack,
    SwitchAbandoned,
)
from yolopool.names import ModelRef
from yolopool.server.clock import Clock

# Of an order without an expected revision that others came before.
ATTEMPTS = 5
DEFAULT_KEEP_S, DEFAULT_WITHIN_S = 600.0, 600.0


@dataclass(frozen=True, slots=True)
class Order:
    """`expected`: the revision that the caller looked at (None: whichever; 0: there is none yet).
    `expected_main`: the version that it means now (None: whichever). `keep_s`: None: as before.
    `within_s`: how long its targets may take to load. `force`: move at once, loaded or not.
    `ungated`: whatever the gate of the model says.
    """

    by: str
    why: str = ""
    expected: int | None = None
    expected_main: int | None = None
    keep_s: float | None = None
    within_s: float = DEFAULT_WITHIN_S
    force: bool = False
    request_id: str = ""
    ungated: bool = False


class AliasOrders:
    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._recorder = recorder
        self._clock = clock

    async def move(self, key: AliasKey, targets: Targets, kind: ChangeKind, order: Order) -> Alias:
        """Makes the alias, or begins to move it. What it means already, or moves to already, stays.

        Raises AliasChanged, ModelNotFound, VersionNotFound, ModelNotReady, ModelImportFailed,
        ValidationFailed, ValidationPending, RegistryFull, RegistryUnavailable.
        """
        self._no_family(key)
        for target in targets:
            self._view.catalogue.ready(ModelRef(key.model, target.version))
        return await self._tried(order, lambda: self._move(key, targets, kind, order))

    async def roll_back(self, key: AliasKey, order: Order) -> Alias:
        """Gives up a switch in progress, else moves the alias to its previous targets: at once
        where they are still loaded. Raises AliasNotFound, NothingToRollBack, and as `move`.
        """
        return await self._tried(order, lambda: self._roll_back(key, order))

    async def _roll_back(self, key: AliasKey, order: Order) -> Alias:
        alias = self._found(key)
        if alias.has_order(order.request_id):
            return alias
        check(key, alias, order)
        if alias.switch is not None:
            now = self._now()
            why = f"rolled back by {order.by}" + (f": {order.why}" if order.why else "")
            standing = standing_of(self._view, alias, now)
            switch = replace(alias.switch, request_id=order.request_id)
            return await self._put(alias, given_up(alias, switch, why, standing, now))
        if alias.family is not None:
            raise NothingToRollBack(f"{key} is a family: set its members as they were")
        if not alias.previous:
            raise NothingToRollBack(
                f"{key} has no earlier target: promote the version that it should mean"
            )
        for target in alias.previous:
            self._view.catalogue.ready(ModelRef(key.model, target.version))
        return await self._begin(key, alias, alias.previous, ChangeKind.ROLLBACK, order)

    async def delete(self, key: AliasKey, order: Order) -> None:
        """Raises AliasNotFound, AliasChanged."""
        alias = self._found(key)
        check(key, alias, order)
        wants = ended(alias, standing_of(self._view, alias, self._now()))
        await self._registry.drop_alias(key, alias.revision, wants)
        await self._refresh()
        version, was = None, ""
        if alias.family is not None:
            was = f"was one of {', '.join(alias.family.models)}"
        else:
            version, was = VersionKey(key.model, alias.main), f"meant {in_words(alias.targets)}"
        message = f"{key} deleted, by {order.by or 'nobody'}; it {was}"
        self._recorder.record(EventKind.ALIAS, version=version, message=message)

    async def moved(self, key: AliasKey, targets: Targets, deadline_s: float) -> Alias:
        """The alias once it means these targets; deadline_s: monotonic. Raises SwitchAbandoned,
        AliasNotFound, DeadlineExceeded: the switch goes on.
        """
        found = await self._view.waiters.until(
            key, lambda: self._outcome(key, targets), deadline_s - self._clock.monotonic()
        )
        if found is None:
            alias = self._found(key)
            raise DeadlineExceeded(
                f"{key} has not moved yet, and the switch goes on: it waits for "
                f"{waits_for(self._view, alias, self._now()) or 'the leader'}",
                details={"waited_for": "SWITCH"},
            )
        return found

    async def _tried(self, order: Order, once: Callable[[], Awaitable[Alias]]) -> Alias:
        """Does it again where another came first, unless the caller said what to find."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await once()
            except AliasChanged:
                if order.expected is not None or order.expected_main is not None:
                    raise
                await self._refresh()
        return await once()

    async def _move(self, key: AliasKey, targets: Targets, kind: ChangeKind, order: Order) -> Alias:
        alias = self._no_family(key)
        asked = alias.ordered(targets) if alias is not None else targets
        if alias is not None and _is_done(alias, asked, order):
            return alias
        check(key, alias, order)
        if kind is not ChangeKind.ROLLBACK and not order.ungated:
            self._check_gates(key, alias, targets)
        return await self._begin(key, alias, asked, kind, order)

    def _outcome(self, key: AliasKey, targets: Targets) -> Alias | None:
        alias = self._found(key)
        if alias.switch is not None and alias.switch.targets == targets:
            return None
        if alias.targets == targets:
            return alias
        last = alias.history[-1]
        why = last.why if last.kind == ChangeKind.ABANDON else "another order came"
        raise SwitchAbandoned(f"{key} did not move {why}")

    async def _begin(
        self, key: AliasKey, alias: Alias | None, targets: Targets, kind: ChangeKind, order: Order
    ) -> Alias:
        now = self._now()
        if alias is None:
            check_room(self._view.desired.aliases, bounds.MAX_ALIASES, "aliases")
            keep_s = DEFAULT_KEEP_S if order.keep_s is None else order.keep_s
            change = AliasChange(
                now, ChangeKind.SET, order.by, order.why, (), targets, order.request_id
            )
            new = Alias(key.model, key.name, targets, keep_s, now).noted(change)
            return await self._put(None, Step(new))
        if order.keep_s is not None:
            alias = replace(alias, keep_s=order.keep_s)
        if alias.targets == targets:
            stays = Step(alias)
            if alias.switch is not None:
                standing = standing_of(self._view, alias, now)
                stays = given_up(alias, alias.switch, "another order came", standing, now)
            return await self._put(alias, stays)
        until = now + order.within_s
        switch = Switch(targets, kind, order.by, order.why, now, until, order.request_id)
        for target in targets:
            self._view.ask_again(VersionKey(key.model, target.version))
        standing = standing_of(self._view, alias, now, targets)
        return await self._put(alias, begun(alias, switch, standing, force=order.force))

    async def _put(self, old: Alias | None, found: Step) -> Alias:
        assert found.alias is not None, "an order writes the alias"
        known = self._view.desired.aliases.get(found.alias.key)
        revision = old.revision if old is not None else 0
        held = await self._registry.put_alias(found.alias, revision, found.wants)
        await self._refresh()
        tell(self._recorder, known, held)
        return held

    def _check_gates(self, key: AliasKey, alias: Alias | None, targets: Targets) -> None:
        """Raises ValidationFailed, ValidationPending for what the alias does not mean yet."""
        known = {target.version for target in alias.targets} if alias is not None else set()
        for target in targets:
            if target.version not in known:
                self._view.desired.check_gate(VersionKey(key.model, target.version))

    def _no_family(self, key: AliasKey) -> Alias | None:
        alias = self._view.desired.aliases.get(key)
        if alias is not None and alias.family is not None:
            raise AliasChanged(f"{key} is a family: set its members, or delete it first")
        return alias

    def _found(self, key: AliasKey) -> Alias:
        return self._view.catalogue.alias(ModelRef(key.model, alias=key.name))

    def _now(self) -> float:
        return self._clock.unix()


def check_revision(key: AliasKey, alias: Alias | None, expected: int | None) -> None:
    """Raises AliasChanged if the alias is at another revision than the caller expects."""
    revision = alias.revision if alias is not None else 0
    if expected is not None and expected != revision:
        raise AliasChanged(f"{key} is at revision {revision}, not {expected}: look at it again")


def check(key: AliasKey, alias: Alias | None, order: Order) -> None:
    """Raises AliasChanged if the alias is not what the caller expects."""
    check_revision(key, alias, order.expected)
    main = alias.main if alias is not None else 0
    if order.expected_main is not None and order.expected_main != main:
        means = f"means version {main}" if main else "does not exist"
        raise AliasChanged(f"{key} {means}, not {order.expected_main}: look at it again")


def _is_done(alias: Alias, targets: Targets, order: Order) -> bool:
    """Whether an order is a repeat of what was done, or is under way."""
    if alias.has_order(order.request_id):
        return True
    if order.keep_s not in (None, alias.keep_s):
        return False
    if alias.switch is not None:
        return alias.switch.targets == targets and not order.force
    return alias.targets == targets

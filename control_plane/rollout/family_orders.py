"""What operators order of families: one write that says what it found, and asks for the members."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.rollout.alias_orders import ATTEMPTS, DEFAULT_KEEP_S, check_revision
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.registry import DesiredState
from control_plane.types.desired import Want, WantChanges, WantSource
from control_plane.types.event import EventKind
from control_plane.types.rollout.alias import Alias, AliasChange, AliasKey, ChangeKind
from control_plane.types.rollout.family import Family, of_members
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import AliasChanged, InvalidFamily
from yolopool.names import parse_ref
from yolopool.server.clock import Clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FamilyOrder:
    """`expected`: the revision that the caller looked at (None: whichever; 0: there is none yet).
    `load`: ask for members that nobody has asked for.
    """

    family: Family
    by: str
    why: str = ""
    expected: int | None = None
    load: bool = True


class FamilyOrders:
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

    async def set(self, key: AliasKey, order: FamilyOrder) -> Alias:
        """Makes a family, or sets its members. Raises InvalidFamily, AliasChanged, what the
        references of its members raise, RegistryFull, RegistryUnavailable.
        """
        for attempt in range(ATTEMPTS):
            old = self._view.desired.aliases.get(key)
            self._check(key, old, order)
            family = self._checked(key, order.family)
            wants = tuple(self._wants(family)) if order.load else ()
            if old is not None and old.family == family and not wants:
                return old
            try:
                return await self._put(key, old, family, wants, order)
            except AliasChanged:
                if order.expected is not None or attempt == ATTEMPTS - 1:
                    raise
                await self._refresh()
        raise AssertionError("the last attempt returns or raises")

    def _check(self, key: AliasKey, old: Alias | None, order: FamilyOrder) -> None:
        check_revision(key, old, order.expected)
        if old is not None and old.family is None:
            raise AliasChanged(
                f"{key} is an alias of versions of {key.model}: delete it first, or give the "
                "family another name"
            )
        if old is None:
            check_room(self._view.desired.aliases, bounds.MAX_ALIASES, "aliases")

    def _checked(self, key: AliasKey, family: Family) -> Family:
        """With the task and classes of its members."""
        catalogue, versions = self._view.catalogue, []
        for model in family.models:
            ref = parse_ref(model)
            inner = catalogue.family(ref)
            if str(key) == model or (inner is not None and not _may_hold(family, inner)):
                raise InvalidFamily(
                    f"{model} can't be a member of {key}: a member is a model, or in a family by "
                    "the time of day a family by size"
                )
            versions.append(catalogue.ready(ref))
        holders = [
            alias.key
            for alias in self._view.desired.aliases.values()
            if alias.family is not None and str(key) in alias.family.models
        ]
        if holders and not family.is_by_size:
            raise InvalidFamily(f"{key} is a member of {holders[0]}: let the size decide in it")
        return of_members(family, versions)

    def _wants(self, family: Family) -> Iterator[Want]:
        now = self._clock.unix()
        for model in family.models:
            for version in self._view.catalogue.meant(parse_ref(model)):
                if self._view.desired.want(version.key) is None:
                    self._view.ask_again(version.key)
                    yield Want(version.key, 1, False, WantSource.ADMIN, now)

    async def _put(
        self,
        key: AliasKey,
        old: Alias | None,
        family: Family,
        wants: tuple[Want, ...],
        order: FamilyOrder,
    ) -> Alias:
        now = self._clock.unix()
        alias, why = old or Alias(key.model, key.name, (), DEFAULT_KEEP_S, now), ""
        if alias.family != family:
            members = ", ".join(
                f"{one.model} from {one.begins}" if one.begins else one.model
                for one in family.members
            )
            why = f"{members}: {order.why}" if order.why else members
            change = AliasChange(now, ChangeKind.FAMILY, order.by, why, (), ())
            alias = replace(alias, family=family, changed_unix_s=now).noted(change)
        revision = old.revision if old is not None else 0
        held = await self._registry.put_alias(alias, revision, WantChanges(wants))
        await self._refresh()
        if why:
            message = f"{key} is now one of {why}, by {order.by or 'nobody'}"
            self._recorder.record(EventKind.ALIAS, message=message)
            log.info("family set", alias=str(key), members=family.models, by=order.by)
        return held


def _may_hold(family: Family, inner: Alias) -> bool:
    return not family.is_by_size and inner.family is not None and inner.family.is_by_size

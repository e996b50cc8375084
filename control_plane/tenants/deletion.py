"""Deletes all of a tenant: what there is of it is decided first (pure), then removed step by step.

Each step is safe to repeat, and the tenant itself goes last: a deletion that was interrupted is
gone on with by the next call.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from control_plane.store.registry import Registry
from control_plane.tenants.exchange import days_until
from control_plane.types.access.tenant import Owners
from control_plane.types.access.usage import DAYS_KEPT
from control_plane.types.desired import Desired
from control_plane.types.rollout.alias import AliasKey
from control_plane.types.schedule import Changeover, Schedule
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import FailedPrecondition
from yolopool.names import is_build
from yolopool.server.clock import Clock

log = structlog.get_logger()

# Deletes models by name, and what belongs to them.
DeleteModels = Callable[[Sequence[str], str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Belongings:
    """What there is of a tenant. `changed`: schedules that go on without its models; None: goes."""

    exists: bool
    keys: tuple[str, ...]
    versions: tuple[VersionKey, ...]
    schedules: Mapping[str, Changeover | None]
    aliases: tuple[AliasKey, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        names = (key.model for key in self.versions if not is_build(key.model))
        return tuple(dict.fromkeys(names))


def belongings(desired: Desired, tenant: str) -> Belongings:
    owners = Owners(desired.tenants)

    def is_own(reference: str) -> bool:
        owner = owners.of(reference.partition("@")[0].partition(":")[0])
        return owner is not None and owner.name == tenant

    changes = {name: _without(one, is_own) for name, one in sorted(desired.schedules.items())}
    return Belongings(
        tenant in desired.tenants,
        tuple(
            sorted(
                key.id
                for key in desired.api_keys.values()
                if key.tenant == tenant and not key.revoked_unix_s
            )
        ),
        tuple(sorted(key for key in desired.versions if is_own(key.model))),
        {
            name: change if change.prepare or change.release else None
            for name, change in changes.items()
            if change != desired.schedules[name].change
        },
        tuple(sorted(key for key in desired.aliases if is_own(key.model))),
    )


def check_admin_left(desired: Desired, keys: Sequence[str], now: float) -> None:
    """Raises FailedPrecondition if no key that can make others is left without these."""
    makers = {key.id for key in desired.api_keys.values() if key.makes_keys(now)}
    if makers and makers <= set(keys):
        raise FailedPrecondition(
            f"the tenant has the last key of an admin ({', '.join(sorted(makers))}): make another "
            "one of another tenant first"
        )


def _without(schedule: Schedule, is_own: Callable[[str], bool]) -> Changeover:
    change = schedule.change
    return Changeover(
        tuple(one for one in change.prepare if not is_own(one.model)),
        tuple(one for one in change.release if not is_own(one)),
    )


class Deletion:
    """`delete_models` removes models with their wants, builds and files."""

    def __init__(
        self,
        registry: Registry,
        view: View,
        refresh: Refresh,
        delete_models: DeleteModels,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._delete_models = delete_models
        self._clock = clock

    async def of(self, tenant: str, by: str, dry_run: bool) -> tuple[Belongings, int]:
        """What was, or would be, deleted, and of how many days there was usage. Raises
        FailedPrecondition, RegistryUnavailable.
        """
        now = self._clock.unix()
        found = belongings(self._view.desired, tenant)
        check_admin_left(self._view.desired, found.keys, now)
        days = days_until(now, DAYS_KEPT)
        if dry_run:
            used = await self._registry.accounts.usage(days)
            return found, sum(tenant in of_day for of_day in used.values())
        for id_ in found.keys:
            await self._registry.change_api_key(id_, lambda key: key.revoked(now))
        for name, change in found.schedules.items():
            schedule = self._view.desired.schedules.get(name)
            if change is None or schedule is None:
                await self._registry.delete_schedule(name)
            else:
                await self._registry.put_schedule(replace(schedule, change=change))
        for key in found.aliases:
            alias = self._view.desired.aliases.get(key)
            if alias is not None:
                await self._registry.drop_alias(key, alias.revision)
        await self._refresh()
        await self._delete_models(found.models, by)
        usage_days = await self._registry.accounts.drop_usage(tenant, days)
        await self._registry.drop_tenant(tenant)
        await self._refresh()
        log.info("tenant deleted", tenant=tenant, by=by)
        return found, usage_days

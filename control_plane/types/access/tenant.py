"""Tenants: who shares the pool, what each may take of it, and which models are whose. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from yolopool.names import base_name
from yolopool.vocabulary import Priority

# The most urgent first.
LEVELS = (Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK)


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What a tenant may take; 0: no limit. See tenants.proto."""

    requests_per_s: float = 0.0
    concurrent_requests: int = 0
    images_per_day: int = 0
    bytes_per_day: int = 0
    store_bytes: int = 0
    memory_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """`models`: patterns of names of the models that are its own. `weight`: its part of a busy
    device beside others. `priority_ceiling`: what more urgent requests are lowered to. `pool`: of
    the workers that are for its models alone; empty: none are.
    """

    name: str
    models: tuple[str, ...] = ()
    limits: TenantLimits = field(default_factory=TenantLimits)
    weight: float = 1.0
    priority_ceiling: Priority = Priority.INTERACTIVE
    pool: str = ""


NOBODY = Tenant("")


def lowered(priority: Priority, ceiling: Priority) -> Priority:
    """The less urgent of the two."""
    return max(priority, ceiling, key=LEVELS.index)


class Owners:
    """Which tenant owns a model: of those whose patterns match, the first by name."""

    def __init__(self, tenants: Mapping[str, Tenant]) -> None:
        self._patterns: list[tuple[str, Tenant]] = []
        # A pattern such as team-a/* is found by its team: plans ask for tens of thousands.
        self._teams: dict[str, Tenant] = {}
        self._known: dict[str, Tenant | None] = {}
        self.pools = frozenset(tenant.pool for tenant in tenants.values() if tenant.pool)
        for name in sorted(tenants):
            for pattern in tenants[name].models:
                team = pattern.removesuffix("/*")
                if team != pattern and not set(team) & set("*?["):
                    self._teams.setdefault(team, tenants[name])
                else:
                    self._patterns.append((pattern, tenants[name]))

    def __bool__(self) -> bool:
        return bool(self._patterns or self._teams)

    def allows(self, model: str, pool: str) -> bool:
        """Whether a model may be on a worker of a pool (empty: of none): of its owner's, if that
        has one, and of no other tenant's.
        """
        if not self.pools:
            return True
        owner = self.of(model)
        own = owner.pool if owner is not None else ""
        return pool == own if own else pool not in self.pools

    def of(self, model: str) -> Tenant | None:
        """The owner of a model, or of the model that a build is of; None: nobody owns it."""
        if not self:
            return None
        if model not in self._known:
            self._known[model] = self._find(base_name(model))
        return self._known[model]

    def _find(self, name: str) -> Tenant | None:
        matching = [tenant for pattern, tenant in self._patterns if fnmatchcase(name, pattern)]
        team, slash, _ = name.partition("/")
        if slash and team in self._teams:
            matching.append(self._teams[team])
        return min(matching, key=lambda tenant: tenant.name, default=None)

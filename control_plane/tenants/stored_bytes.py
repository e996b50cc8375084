"""What files of models take in the artifact store, and whether more may come: by tenant, and by the
rules of operators for names that match a pattern. One file counts once in each.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from control_plane.types.access.tenant import Owners, Tenant
from control_plane.types.desired import Desired
from control_plane.types.policy import ModelRule
from control_plane.types.version import ModelVersion
from control_plane.view.view import View
from yolopool.errors import ResourceExhausted, StoreQuota, TenantStore

MB = 1e6

IsOwn = Callable[[str], bool]
HeldBytes = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class _Limit:
    """What the files of the models that are `own` may take together. `whose`: for people."""

    whose: str
    own: IsOwn
    bytes: int
    error: type[ResourceExhausted]
    named: dict[str, str]


class StoredBytes:
    """`held_bytes`: of an upload by its digest, 0 if it is not there; it may look at the disk."""

    def __init__(self, view: View, held_bytes: HeldBytes) -> None:
        self._view = view
        self._held_bytes = held_bytes

    def check_model(self, model: str, artifact: str = "") -> None:
        """Raises TenantStore or StoreQuota if the owner of a model, or a rule for its name, has no
        room for an upload that is to be registered, or has none at all.
        """
        for limit in self._limits(model):
            self._check(limit, artifact)

    def check_upload(self, tenant: str, size_bytes: int) -> None:
        """Raises TenantStore if a caller's tenant has no room for an upload of so many bytes. Of
        which model it will be is not known yet.
        """
        found = self._view.desired.tenants.get(tenant)
        if found is not None and found.limits.store_bytes:
            self._check(self._of_tenant(found), "", size_bytes)

    def check_fetch(self, model: str, size_bytes: int) -> None:
        """Raises TenantStore or StoreQuota if the owner of a model, or a rule for its name, has no
        room for a file of so many bytes.
        """
        for limit in self._limits(model):
            self._check(limit, "", size_bytes)

    def used(self, rule: ModelRule) -> int:
        """What the files of all models take that match a rule."""
        return sum(self._files(rule.matches).values())

    def _limits(self, model: str) -> Iterator[_Limit]:
        desired = self._view.desired
        owner = Owners(desired.tenants).of(model)
        if owner is not None and owner.limits.store_bytes:
            yield self._of_tenant(owner)
        for pattern in sorted(desired.rules):
            rule = desired.rules[pattern]
            if rule.store_bytes and rule.matches(model):
                whose, named = f"the models that match {pattern}", {"pattern": pattern}
                yield _Limit(whose, rule.matches, rule.store_bytes, StoreQuota, named)

    def _of_tenant(self, tenant: Tenant) -> _Limit:
        owners = Owners(self._view.desired.tenants)
        return _Limit(
            f"the models of tenant {tenant.name}",
            lambda model: owners.of(model) == tenant,
            tenant.limits.store_bytes,
            TenantStore,
            {"tenant": tenant.name},
        )

    def _check(self, limit: _Limit, artifact: str, size_bytes: int = 0) -> None:
        files = self._files(limit.own)
        used, more = sum(files.values()), size_bytes
        if artifact and artifact not in files:
            more = self._held_bytes(artifact)
        if used + more > limit.bytes or (used >= limit.bytes and not artifact):
            raise limit.error(
                f"{limit.whose} take {used / MB:,.1f} of {limit.bytes / MB:,.1f} MB in the store, "
                f"and {more / MB:,.1f} MB more are asked for: delete models, or ask an admin for "
                "more",
                details={
                    **limit.named,
                    "used_bytes": str(used),
                    "limit_bytes": str(limit.bytes),
                },
            )

    def _files(self, own: IsOwn) -> dict[str, int]:
        return own_files(self._view.desired, own, self._held_bytes)


def own_files(desired: Desired, own: IsOwn, held_bytes: HeldBytes) -> dict[str, int]:
    """The bytes of each file, by digest, of the models whose names are `own` and of their gates."""
    versions = [one for key, one in desired.versions.items() if own(key.model)]
    gates = [rule.gate.data for p, rule in desired.rules.items() if rule.gate and own(p)]
    files = stored(versions, held_bytes)
    return {**{data: held_bytes(data) for data in gates if data not in files}, **files}


def stored(versions: Iterable[ModelVersion], held_bytes: HeldBytes) -> dict[str, int]:
    """The bytes of each file that versions use, by digest: one that several use is counted once."""
    found: dict[str, int] = {}
    for version in versions:
        served = (build.pack for build in version.given.served.values())
        for pack in (version.pack, *served):
            if pack is not None:
                found[pack.digest] = pack.pack_bytes
        if version.artifact not in found:
            known = version.pack.artifact_bytes if version.pack is not None else 0
            found[version.artifact] = known or held_bytes(version.artifact)
    return found

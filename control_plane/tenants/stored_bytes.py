"""What the files of a tenant's models take in the artifact store, and whether more may come."""

from collections.abc import Callable, Iterable

from control_plane.types.access.tenant import Owners, Tenant
from control_plane.types.version import ModelVersion
from control_plane.view.view import View
from yolopool.errors import TenantStore

MB = 1e6


class StoredBytes:
    """`held_bytes`: of an upload by its digest, 0 if it is not there; it may look at the disk."""

    def __init__(self, view: View, held_bytes: Callable[[str], int]) -> None:
        self._view = view
        self._held_bytes = held_bytes

    def check_model(self, model: str, artifact: str = "") -> None:
        """Raises TenantStore if the owner of a model has no room for an upload that is to be
        registered, or has none at all.
        """
        self._check(Owners(self._view.desired.tenants).of(model), artifact)

    def check_upload(self, tenant: str, size_bytes: int) -> None:
        """Raises TenantStore if a caller's tenant has no room for an upload of so many bytes."""
        self._check(self._view.desired.tenants.get(tenant), "", size_bytes)

    def check_fetch(self, model: str, size_bytes: int) -> None:
        """Raises TenantStore if the owner of a model has no room for a file of so many bytes."""
        self._check(Owners(self._view.desired.tenants).of(model), "", size_bytes)

    def _check(self, tenant: Tenant | None, artifact: str, size_bytes: int = 0) -> None:
        limit = tenant.limits.store_bytes if tenant is not None else 0
        if tenant is None or not limit:
            return
        owners, versions = Owners(self._view.desired.tenants), self._view.desired.versions
        own = [one for key, one in versions.items() if owners.of(key.model) == tenant]
        files = stored(own, self._held_bytes)
        used, more = sum(files.values()), size_bytes
        if artifact and artifact not in files:
            more = self._held_bytes(artifact)
        if used + more > limit or (used >= limit and not artifact):
            raise TenantStore(
                f"the models of tenant {tenant.name} take {used / MB:,.1f} of {limit / MB:,.1f} MB "
                f"in the store, and {more / MB:,.1f} MB more are asked for: delete models, or ask "
                "an admin for more",
                details={"tenant": tenant.name, "used_bytes": str(used), "limit_bytes": str(limit)},
            )


def stored(versions: Iterable[ModelVersion], held_bytes: Callable[[str], int]) -> dict[str, int]:
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

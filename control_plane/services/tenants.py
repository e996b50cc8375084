"""TenantService: sets, lists, meters and deletes tenants."""

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.tenants import check_tenant_name, tenant_in, tenant_out, usage_out
from control_plane.convert.versions import key_out
from control_plane.store.registry import Registry
from control_plane.tenants.deletion import Deletion
from control_plane.tenants.exchange import days_until
from control_plane.types.access.usage import DAYS_KEPT
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import InvalidOption
from yolopool.server.clock import Clock
from yolopool.v1 import tenants_pb2, tenants_pb2_grpc

log = structlog.get_logger()

MAX_TENANTS = 1000


class TenantService(tenants_pb2_grpc.TenantServiceServicer):
    def __init__(
        self, registry: Registry, view: View, refresh: Refresh, deletion: Deletion, clock: Clock
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._deletion = deletion
        self._clock = clock

    async def SetTenant(
        self, request: tenants_pb2.SetTenantRequest, context: CallContext
    ) -> tenants_pb2.SetTenantResponse:
        tenant, known = tenant_in(request.tenant), self._view.desired.tenants
        if tenant.name not in known and len(known) >= MAX_TENANTS:
            raise InvalidOption(f"there are {MAX_TENANTS} tenants: delete those that are not used")
        held = await self._registry.put_tenant(tenant)
        await self._refresh()
        log.info("tenant set", tenant=held.name, by=principal_of(context).name)
        return tenants_pb2.SetTenantResponse(tenant=tenant_out(held))

    async def ListTenants(
        self, request: tenants_pb2.ListTenantsRequest, context: CallContext
    ) -> tenants_pb2.ListTenantsResponse:
        tenants = self._view.desired.tenants
        return tenants_pb2.ListTenantsResponse(
            tenants=[tenant_out(tenants[name]) for name in sorted(tenants)]
        )

    async def GetUsage(
        self, request: tenants_pb2.GetUsageRequest, context: CallContext
    ) -> tenants_pb2.GetUsageResponse:
        if request.days > DAYS_KEPT:
            raise InvalidOption(f"days is {request.days}: the last {DAYS_KEPT} are kept")
        days = days_until(self._clock.unix(), request.days or 1)
        used = await self._registry.accounts.usage(days)
        return tenants_pb2.GetUsageResponse(
            usage=[
                usage_out(tenant, day, used[day][tenant])
                for day in days
                for tenant in sorted(used.get(day, ()))
                if request.name in ("", tenant)
            ]
        )

    async def DeleteTenant(
        self, request: tenants_pb2.DeleteTenantRequest, context: CallContext
    ) -> tenants_pb2.DeleteTenantResponse:
        name = check_tenant_name(request.name)
        if not request.dry_run and request.confirm != name:
            raise InvalidOption(
                f"deleting tenant {name} deletes its keys and models, and is not undone: say its "
                "name again in confirm, or ask what would go with dry_run"
            )
        by = principal_of(context).name
        found, usage_days = await self._deletion.of(name, by, request.dry_run)
        return tenants_pb2.DeleteTenantResponse(
            keys=found.keys,
            versions=[key_out(key) for key in found.versions],
            schedules=[name for name, change in found.schedules.items() if change is None],
            changed_schedules=[name for name, change in found.schedules.items() if change],
            usage_days=usage_days,
            existed=found.exists,
            aliases=[str(key) for key in found.aliases],
        )

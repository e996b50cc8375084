"""Forwards the calls that the leader must answer, and says why the others are served locally."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import grpc

from control_plane.caller import principal_of
from control_plane.leader.client import FLAG, LeaderClient, LeaderLost, log
from control_plane.view.reflector import Refresh

# What changes desired state, and what only the leader's plan can tell. A write that a follower
# served itself would reach the store, but the leader would hear of it later: the caller's next read
# would miss it, and the leader would keep a load's back-off that the write is to end.
FORWARDED = frozenset(
    {
        *(
            f"/yolopool.v1.ModelService/{name}"
            for name in (
                "RegisterModel",
                "GetModel",
                "ListModels",
                "DeleteModel",
                "LoadModel",
                "UnloadModel",
                "SetResidency",
                "SetLabels",
                "SetPlacement",
                "SetBatching",
                "BuildModel",
                "SetVariant",
                "Changeover",
            )
        ),
        "/yolopool.v1.ExplainService/PlanLoad",
        "/yolopool.v1.ExplainService/ExplainModel",
        "/yolopool.v1.FleetService/DrainWorker",
        "/yolopool.v1.RuleService/SetGate",
        "/yolopool.v1.RuleService/SetStoreRule",
        "/yolopool.v1.ScheduleService/SetSchedule",
        "/yolopool.v1.ScheduleService/DeleteSchedule",
        "/yolopool.v1.WatchService/SetWatch",
        "/yolopool.v1.WatchService/DeleteWatch",
        *(f"/yolopool.v1.KeyService/{name}" for name in ("CreateKey", "RotateKey", "RevokeKey")),
        "/yolopool.v1.CertificateService/RevokeCertificate",
        *(
            f"/yolopool.v1.AliasService/{name}"
            for name in ("GetAlias", "SetAlias", "PromoteModel", "RollbackAlias", "DeleteAlias")
        ),
        *(
            f"/yolopool.v1.RolloutService/{name}"
            for name in ("StartRollout", "GetRollout", "AbortRollout")
        ),
        "/yolopool.v1.FamilyService/SetFamily",
        *(
            f"/yolopool.v1.AlertService/{name}"
            for name in (
                "ResolveAlert",
                "SilenceAlerts",
                "EndSilence",
                "SetAlertThreshold",
                "SetWebhook",
                "ListWebhooks",
                "DeleteWebhook",
                "TestWebhook",
            )
        ),
        "/yolopool.v1.TenantService/SetTenant",
        "/yolopool.v1.TenantService/DeleteTenant",
    }
)

_EVERY_ONE = "each control plane serves its own workers and callers"
_AUTHORITY = "not every control plane has the key of the authority"
# Every other method, and why the control plane that is called serves it.
SERVED_LOCALLY: Mapping[str, str] = {
    "/yolopool.v1.DetectionService/Detect": "the data path; of a miss only the want is forwarded",
    "/yolopool.v1.DetectionService/DetectStream": "the data path: each frame is a Detect",
    "/yolopool.v1.PeerService/WantVersion": "it is what a follower sends to the leader",
    "/yolopool.v1.ModelService/UploadArtifact": "a stream of bytes into the artifact store",
    "/yolopool.v1.ModelService/SweepStore": "it is about the artifact store of the one called",
    "/yolopool.v1.BenchService/BenchModel": "a stream; a miss is forwarded as of Detect",
    "/yolopool.v1.EventService/WatchEvents": "all control planes read one stream of the store",
    "/yolopool.v1.ExplainService/ExplainRequest": "the caller's control plane kept the request",
    "/yolopool.v1.FleetService/ListWorkers": "each control plane hears every worker",
    "/yolopool.v1.FleetService/GetWorker": "each control plane hears every worker",
    "/yolopool.v1.FleetService/GetFleet": "it tells of the control plane that is called",
    "/yolopool.v1.FleetService/GetStatistics": "it tells of the control plane that is called",
    "/yolopool.v1.RuleService/ListRules": "each control plane follows the store",
    "/yolopool.v1.ScheduleService/ListSchedules": "each control plane follows the store",
    "/yolopool.v1.WatchService/ListWatches": "each control plane follows the store",
    "/yolopool.v1.KeyService/ListKeys": "each control plane follows the store",
    "/yolopool.v1.CertificateService/CreateJoinToken": _AUTHORITY,
    "/yolopool.v1.CertificateService/IssueCertificate": _AUTHORITY,
    "/yolopool.v1.CertificateService/RenewCertificate": _AUTHORITY,
    "/yolopool.v1.CertificateService/ListCertificates": "each control plane follows the store",
    "/yolopool.v1.AliasService/ListAliases": "each control plane follows the store",
    "/yolopool.v1.RolloutService/ListRollouts": "each control plane follows the store",
    "/yolopool.v1.RolloutService/GetDisagreements": "each keeps the images that it compared",
    "/yolopool.v1.FamilyService/GetFamily": "each control plane chooses by the calls that it sends",
    "/yolopool.v1.TenantService/ListTenants": "each control plane follows the store",
    "/yolopool.v1.TenantService/GetUsage": "all control planes count in the store",
    "/yolopool.v1.AlertService/ListAlerts": "alerts are in the store",
    "/yolopool.v1.AlertService/ListAlertRules": "each control plane follows the store",
    "/yolopool.v1.AlertService/ListSilences": "each control plane follows the store",
    "/yolopool.v1.ScheduleService/GetSchedule": "each control plane follows the store",
    "/yolopool.v1.ImportService/ClaimImport": "one script of the store hands an import out",
    "/yolopool.v1.ImportService/ReportImport": "the store checks the importer's lease",
    "/yolopool.v1.MembershipService/Join": _EVERY_ONE,
    "/yolopool.v1.MembershipService/Heartbeat": _EVERY_ONE,
    "/yolopool.v1.MembershipService/Leave": _EVERY_ONE,
    "/yolopool.v1.MembershipService/ReportExit": _EVERY_ONE,
}


class LeaderForwarding(grpc.aio.ServerInterceptor):
    """`refresh` reads what the leader wrote into this view before the caller gets the reply."""

    def __init__(self, leader_client: LeaderClient, refresh: Refresh) -> None:
        self._leader_client = leader_client
        self._refresh = refresh

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        is_forwarded = any(key == FLAG for key, _ in handler_call_details.invocation_metadata or ())
        if (
            handler is None
            or method not in FORWARDED
            or is_forwarded
            or not self._leader_client.leader()
        ):
            return handler

        async def call(request: Any, context: Any) -> bytes:
            answer = await self._forward(method, request, context)
            if answer is None:
                here = await handler.unary_unary(request, context)
                answer = handler.response_serializer(here)
            return answer

        return handler._replace(unary_unary=call, response_serializer=None)

    async def _forward(self, method: str, request: Any, context: Any) -> bytes | None:
        """The leader's reply; None: serve the call here."""
        address = self._leader_client.leader()
        if not address:
            return None
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            # If the leader ends before it replies, a second attempt is still the same request.
            request.request_id = uuid4().hex
        left_s = context.time_remaining()
        try:
            answer = await self._leader_client.call(
                address, method, request.SerializeToString(), left_s, principal_of(context)
            )
        except LeaderLost as lost:
            log.info("served here", method=method, why=str(lost))
            return None
        finally:
            await self._refresh()
        return answer
